"""A transformer's side when the device's memory is short."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splade_integrations.encoding.tokenizer import TokenIds
from splade_integrations.encoding.transformer import TransformerSide, _one_behind
from splade_integrations.engine.transfer import SparseExtraction


class SmallDevice:
    """A model on a device that holds so many tokens at once, once it has been told."""

    def __init__(self, model):
        self._model, self.tokens = model, float("inf")
        self.device, self.dtype = model.device, model.dtype
        self.tried = []
        self.get_input_embeddings = model.get_input_embeddings

    def __call__(self, input_ids, **arguments):
        self.tried.append(input_ids.numel())
        if input_ids.numel() > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._model(input_ids=input_ids, **arguments)


@pytest.fixture
def side_on(random_encoder):
    """Make a side whose device holds so many tokens."""
    whole = random_encoder._side("document")

    def make(tokens, max_batch_tokens=4096):
        loaded = replace(whole._loaded, model=SmallDevice(whole._loaded.model))
        side = TransformerSide(
            whole._description,
            loaded,
            max_length=whole.max_length,
            max_batch_tokens=max_batch_tokens,
            max_batch_texts=None,
        )
        loaded.model.tokens = tokens
        loaded.model.tried.clear()  # what it took to make the side
        return side, loaded.model

    return make


def test_a_batch_that_does_not_fit_is_halved_and_its_size_remembered(side_on, random_encoder, texts, caplog):
    side, model = side_on(tokens=600)
    token_ids = side.tokenize(texts[:90])
    expected = random_encoder._side("document").encode(token_ids, lambda _: None)
    done = []
    np.testing.assert_allclose(side.encode(token_ids, done.append).toarray(), expected.toarray(), atol=1e-5)
    assert sum(done) == 90
    failed = [size for size in model.tried if size > 600]
    assert 1 <= len(failed) <= 4
    assert len(caplog.records) == len(failed)
    assert "set max_batch_tokens" in caplog.text
    # All failures came first, but for batches of other lengths, and the next call has none.
    assert max(model.tried[len(failed) :]) <= 600
    model.tried.clear()
    np.testing.assert_allclose(side.encode(token_ids, done.append).toarray(), expected.toarray(), atol=1e-5)
    assert max(model.tried) <= 600


def test_a_text_that_does_not_fit_alone(side_on):
    side, _ = side_on(tokens=50)
    with pytest.raises(torch.OutOfMemoryError, match=r"got one of 256 tokens.* max_batch_tokens .* max_length"):
        side.encode(side.tokenize(["word " * 300, "a"]), lambda _: None)


class SmallExtraction(SparseExtraction):
    """Rows of so many texts at once fit beside the model's work, and no more."""

    def __init__(self, device, texts):
        super().__init__(device)
        self._texts = texts

    def start(self, weights):
        finish = super().start(weights)

        def finish_if_it_fits():
            if len(weights) > self._texts:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return finish()

        return finish_if_it_fits


def test_rows_that_do_not_fit_are_made_of_smaller_batches(side_on, random_encoder, texts, caplog):
    side, model = side_on(tokens=10**6)
    side._extraction = SmallExtraction(model.device, 3)
    token_ids = side.tokenize(texts[:40])
    expected = random_encoder._side("document").encode(token_ids, lambda _: None)
    done = []
    np.testing.assert_allclose(side.encode(token_ids, done.append).toarray(), expected.toarray(), atol=1e-5)
    assert sum(done) == 40
    assert "batches have at most" in caplog.text
    side._extraction = SmallExtraction(model.device, 0)
    with pytest.raises(torch.OutOfMemoryError, match="a text must fit the memory"):
        side.encode(token_ids, lambda _: None)


def test_texts_without_any_token_have_empty_rows(random_encoder):
    side = random_encoder._side("document")
    alone = side.encode(TokenIds([[7, 8, 9]], [1], 0, 0, 3), lambda _: None)
    done = []
    rows = side.encode(TokenIds([[], [7, 8, 9], []], [1, 1, 1], 0, 0, 3), done.append)
    assert sum(done) == 3
    assert np.diff(rows.indptr).tolist() == [0, alone.nnz, 0]
    np.testing.assert_allclose(rows[[1]].toarray(), alone.toarray(), atol=1e-5)
    assert side.encode(TokenIds([[]], [1], 0, 0, 0), done.append).shape == (1, side.dim)


def test_one_batch_is_in_flight():
    events = []

    def items():
        for number in range(3):
            events.append(f"start {number}")
            yield number

    for number in _one_behind(items()):
        events.append(f"finish {number}")
    assert events == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]
    assert list(_one_behind(iter([]))) == []
