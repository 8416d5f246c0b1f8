"""Tests of a model on a device with little memory, and of the order in which batches are started and finished."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from splade_integrations.engine import batching
from splade_integrations.engine.model import SpladeModel
from splade_integrations.sparse import from_dense
from tests.support.loading import loaded

POOLING = {"pooling_strategy": "max", "activation_function": "relu", "padding_id": 0}


class SmallDevice:
    """A network on a device that can hold `tokens` tokens at once. `tokens` is infinite until a test sets it."""

    def __init__(self, network):
        self._network, self.tokens = network, float("inf")
        self.device, self.base_model = network.device, network.base_model
        self.tried = []

    def __call__(self, input_ids, **arguments):
        self.tried.append(input_ids.numel())
        if input_ids.numel() > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self._network(input_ids=input_ids, **arguments)


@pytest.fixture(scope="module")
def masked_lm(random_bert_folder):
    return loaded(random_bert_folder)


@pytest.fixture(scope="module")
def ids(random_encoder, texts):
    return random_encoder.tokenizer(texts[:90], truncation=True, max_length=256)["input_ids"]


@pytest.fixture
def model_on(masked_lm):
    """Return a function that makes a model on a device that can hold a given number of tokens."""

    def make(tokens, max_batch_tokens=4096, num_threads=None):
        device = SmallDevice(masked_lm.network)
        model = SpladeModel(
            replace(masked_lm, network=device), max_batch_tokens=max_batch_tokens, num_threads=num_threads, **POOLING
        )
        device.tokens = tokens
        device.tried.clear()  # forget the calls that were made to set up the model
        return model, device

    return make


def expected_rows(masked_lm, ids):
    return SpladeModel(masked_lm, **POOLING).encode(ids, lambda _: None).toarray()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_batch_that_does_not_fit_is_halved_and_its_size_remembered(model_on, masked_lm, ids, caplog, threads):
    model, device = model_on(tokens=600, num_threads=threads)
    expected = expected_rows(masked_lm, ids)
    done = []
    np.testing.assert_allclose(model.encode(ids, done.append).toarray(), expected, atol=1e-5)
    assert sum(done) == 90
    failed = [size for size in device.tried if size > 600]
    assert 1 <= len(failed) <= 4 * threads  # each thread may have started a batch before another one failed
    assert len(caplog.records) == len(failed)
    assert "set max_batch_tokens" in caplog.text
    if threads == 1:  # after the first failures no batch is too large
        assert max(device.tried[len(failed) :]) <= 600
    device.tried.clear()
    np.testing.assert_allclose(model.encode(ids, done.append).toarray(), expected, atol=1e-5)
    assert max(device.tried) <= 600  # so the next call does not fail


def test_a_text_that_does_not_fit_alone(model_on):
    model, _ = model_on(tokens=50)
    with pytest.raises(torch.OutOfMemoryError, match=r"got a text of 256 tokens.* max_length .* max_batch_tokens"):
        model.encode([[7] * 256, [7, 8]], lambda _: None)


def test_rows_that_do_not_fit_are_made_of_smaller_batches(model_on, masked_lm, ids, caplog, monkeypatch):
    """The weights fit into the device's memory, but converting them to sparse rows needs more memory than there is."""
    most = 3

    def rows_of_few(weights):
        if len(weights) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return from_dense(weights)

    model, _ = model_on(tokens=10**6)
    expected = expected_rows(masked_lm, ids[:40])
    monkeypatch.setattr(batching, "from_dense", rows_of_few)
    done = []
    np.testing.assert_allclose(model.encode(ids[:40], done.append).toarray(), expected, atol=1e-5)
    assert sum(done) == 40
    assert "batches have at most" in caplog.text
    most = 0
    with pytest.raises(torch.OutOfMemoryError, match="a text must fit the memory"):
        model.encode(ids[:40], lambda _: None)


def test_texts_without_any_token_have_empty_rows(masked_lm):
    model = SpladeModel(masked_lm, **POOLING)
    alone = model.encode([[7, 8, 9]], lambda _: None)
    done = []
    rows = model.encode([[], [7, 8, 9], []], done.append)
    assert sum(done) == 3
    assert np.diff(rows.indptr).tolist() == [0, alone.nnz, 0]
    np.testing.assert_allclose(rows[[1]].toarray(), alone.toarray(), atol=1e-5)
    assert model.encode([[]], done.append).shape == (1, model.dim)


def test_one_batch_is_in_flight(masked_lm, monkeypatch):
    """A batch starts before the previous batch's rows are waited for, so a GPU copies rows while it computes."""
    model, events = SpladeModel(masked_lm, max_batch_texts=1, **POOLING), []

    class Transfer:
        def start(self, weights):
            number = len([event for event in events if event.startswith("start")])
            events.append(f"start {number}")

            def finish():
                events.append(f"finish {number}")
                return from_dense(weights.numpy())

            return finish

    monkeypatch.setattr(model, "transfer", Transfer())
    model.encode([[7, 8], [7, 9], [8, 9]], lambda _: None)
    assert events == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]


def test_memory_that_runs_out_on_a_cpu(model_on, masked_lm, ids, caplog):
    """On a CPU, torch raises a RuntimeError. The batch is halved then, too. If no batch fits, the message is clear."""
    model, device = model_on(tokens=10**6)
    expected = expected_rows(masked_lm, ids[:40])
    network, most = device._network, 600

    def allocate(input_ids, **arguments):
        torch.empty(2**62 if input_ids.numel() > most else 1, dtype=torch.uint8)
        return network(input_ids=input_ids, **arguments)

    device._network = allocate
    np.testing.assert_allclose(model.encode(ids[:40], lambda _: None).toarray(), expected, atol=1e-5)
    assert "Out of memory on cpu" in caplog.text
    most = 0
    with pytest.raises(torch.OutOfMemoryError, match="a text must fit the memory of cpu"):
        model.encode(ids[:1], lambda _: None)
    most = 10**6
    np.testing.assert_allclose(model.encode(ids[:40], lambda _: None).toarray(), expected, atol=1e-5)
