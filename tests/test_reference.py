"""Every head, layer rewrite, dtype and backend must return the rows of `reference.py`.

A new head is tested once it is in `engine.heads.ALL`, and a new dtype or backend once `engine/compute.py` names it.
"""

from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade_integrations import SpladeEncoder, reference
from splade_integrations.engine import heads
from splade_integrations.engine.compute import Backend, Precision
from splade_integrations.models.spec import ACTIVATION_FUNCTIONS, POOLING_STRATEGIES
from tests.support.loading import splade_model
from tests.support.random_checkpoints import ARCHITECTURES, save_masked_lm

EXACT = 1e-5
# The largest and the mean allowed difference of a term weight, for each number type of the linear layers. All types
# except float32 round in each layer, so their differences are larger.
TOLERANCE = {"float32": (EXACT, 1e-7), "bfloat16": (0.15, 5e-5), "float16": (0.03, 1e-5), "int8": (0.25, 6e-5)}


@pytest.fixture(scope="module")
def some_texts(texts):
    """Return short and long texts, an empty one, and texts with odd characters."""
    return [*texts[:8], *texts[-10:]]


@pytest.fixture(scope="module")
def rows_of(some_texts):
    """Return a function that returns the reference's rows (N, V) for a checkpoint, and computes them only once."""
    known = {}

    def rows(folder, **options):
        key = (str(folder), *sorted(options.items()))
        if key not in known:
            model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder)
            known[key] = reference.encode(model, tokenizer, some_texts, max_length=64, **options).toarray()
        return known[key]

    return rows


@pytest.mark.parametrize("activation_function", ACTIVATION_FUNCTIONS)
@pytest.mark.parametrize("kind", heads.ALL, ids=lambda kind: kind.__name__)
def test_every_head(kind, activation_function, random_bert_folder, rows_of, some_texts):
    options = {"pooling_strategy": kind.pooling_strategy, "activation_function": activation_function}
    model = splade_model(random_bert_folder, **options)
    if kind is heads.TritonHead:
        pytest.importorskip("triton")
    model.head = kind(model.model.decoder, activation_function)
    tokenizer = AutoTokenizer.from_pretrained(random_bert_folder)
    ids = tokenizer(some_texts, truncation=True, max_length=64)["input_ids"]
    rows = model.encode(ids, lambda _: None).toarray()
    np.testing.assert_allclose(rows, rows_of(random_bert_folder, **options), atol=EXACT, rtol=1e-5)


@pytest.mark.parametrize("pooling_strategy", POOLING_STRATEGIES)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "camembert", "electra"])
def test_every_architecture_and_pooling(architecture, pooling_strategy, tmp_path, rows_of, some_texts):
    options = {"embedding_size": 16} if architecture == "electra" else {}
    save_masked_lm(tmp_path, architecture, **options)
    pooling = {"pooling_strategy": pooling_strategy, "activation_function": "relu"}
    rows = SpladeEncoder(tmp_path, device="cpu", max_length=64, **pooling).encode_documents(some_texts).toarray()
    np.testing.assert_allclose(rows, rows_of(tmp_path, **pooling), atol=EXACT, rtol=1e-5)


@pytest.mark.parametrize(("precision", "backend"), [*product(get_args(Precision), get_args(Backend))])
def test_every_dtype_and_backend(precision, backend, model_folder, rows_of, some_texts):
    """Use the trained model, because the rounding error depends on the weights."""
    try:
        encoder = SpladeEncoder(model_folder, device="cpu", dtype=precision, backend=backend, max_length=64)
    except ValueError as err:
        if precision == "float32" or (precision != "int8" and backend == "torch"):  # these run on every CPU
            raise
        pytest.skip(str(err))
    difference = np.abs(encoder.encode_documents(some_texts).toarray() - rows_of(model_folder))
    largest, mean = TOLERANCE[precision]
    assert difference.max() < largest  # the weights of a text add up to about 28
    assert difference.mean() < mean
    if precision != "float32":
        assert difference.max() > EXACT  # otherwise the encoder would compute in float32
