"""backend="openvino" equals torch for every kind of layer that it supports, and refuses all other layers."""

import importlib.metadata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import pytest
import torch
from scipy.sparse import vstack

from splade_integrations import OptionalDependencyError, SpladeEncoder, UnsupportedModelError
from splade_integrations.engine import compute
from splade_integrations.engine.int8_gemm import QMAX_7BIT, QMAX_8BIT, int8_weight_qmax
from splade_integrations.engine.layers import FusedLayers
from splade_integrations.engine.openvino import OpenVinoLayers
from tests.support.loading import loaded
from tests.support.random_checkpoints import save_masked_lm
from tests.test_package import run_without

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
DTYPES = ["float32"] + ["bfloat16"] * HAS_BFLOAT16 + ["int8"] * (int8_weight_qmax() == QMAX_8BIT)
# Texts of each length up to a limit, including lengths that the backend rounds up.
EVERY_LENGTH = ["a" * length for length in range(90)]


def layers_of(folder, backend):
    modules = loaded(folder, backend=backend).network.base_model.modules()
    return [type(module) for module in modules if isinstance(module, FusedLayers | OpenVinoLayers)]


@pytest.fixture(scope="module")
def by_openvino(model_folder):
    return {dtype: SpladeEncoder(model_folder, max_length=256, backend="openvino", dtype=dtype) for dtype in DTYPES}


@pytest.mark.parametrize(
    ("architecture", "config_options"),
    [
        ("bert", {}),
        ("distilbert", {}),
        ("roberta", {}),
        ("xlm-roberta", {}),
        ("camembert", {}),
        ("electra", {"embedding_size": 16}),
        ("bert", {"attn_implementation": "eager"}),  # this implementation adds its masks to the scores
    ],
)
def test_float32_equals_torch(tmp_path, architecture, config_options):
    save_masked_lm(tmp_path, architecture, **config_options)
    expected = SpladeEncoder(tmp_path).encode_documents(EVERY_LENGTH)
    encoder = SpladeEncoder(tmp_path, backend="openvino")
    assert layers_of(tmp_path, "openvino") == [OpenVinoLayers]
    np.testing.assert_allclose(encoder.encode_documents(EVERY_LENGTH).toarray(), expected.toarray(), atol=1e-5)
    assert "backend='openvino'" in repr(encoder)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_depends_on_no_neighbour(by_openvino, encoder, texts, dtype):
    """In a batch, a few numbers of a row may be rounded differently, but most must stay the same.

    A kernel's order of addition depends on the number of rows, and this changes a few roundings to 16 and 8 bits. If
    the quantisation steps depended on the other rows of the batch, every number would be rounded differently.
    """
    some = texts[:5] + texts[-8:]
    together = by_openvino[dtype].encode_documents(some)
    alone = vstack([by_openvino[dtype].encode_documents([text]) for text in some])
    rounding = abs(alone - encoder.encode_documents(some)).sum()
    assert abs(together - alone).sum() < 0.25 * rounding + 1e-5 * alone.nnz
    if dtype == "float32":
        assert abs(together - alone).max() < 1e-5


def test_rounding_is_what_the_dtype_says(by_openvino, encoder, texts):
    expected = encoder.encode_documents(texts)
    differences = {dtype: abs(one.encode_documents(texts) - expected) for dtype, one in by_openvino.items()}
    assert differences["float32"].max() < 1e-5
    for dtype in DTYPES[1:]:
        assert differences[dtype].max() < 0.3
        assert differences[dtype].sum() < 0.05 * expected.sum()
    if HAS_BFLOAT16:
        assert differences["bfloat16"].max() > 1e-3
    if HAS_BFLOAT16 and "int8" in DTYPES:  # if only the weights were int8, the difference would be smaller
        assert differences["int8"].sum() > 1.5 * differences["bfloat16"].sum()


@pytest.mark.skipif("int8" not in DTYPES, reason="OpenVINO has no fast int8 product here")
@pytest.mark.parametrize("intermediate_size", [64, 36])  # with 36, only the weights are int8
def test_int8_of_other_widths(tmp_path, intermediate_size):
    save_masked_lm(tmp_path, "bert", intermediate_size=intermediate_size)
    expected = SpladeEncoder(tmp_path).encode_documents(EVERY_LENGTH)
    found = SpladeEncoder(tmp_path, backend="openvino", dtype="int8").encode_documents(EVERY_LENGTH)
    assert abs(found - expected).sum() < 0.05 * expected.sum()


def test_threads_share_an_encoder(by_openvino, texts):
    encoder = by_openvino["float32"]
    batches = [texts[start : start + 20] for start in range(0, 160, 20)]
    expected = [encoder.encode_documents(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, rows in zip(pool.map(encoder.encode_documents, batches), expected, strict=True):
            assert abs(found - rows).max() < 1e-5


def test_an_explanation_adds_up(by_openvino, encoder):
    query, document = "who cracked enigma", "Alan Turing broke the Enigma cipher."
    found, expected = (one.explain(query, document) for one in (by_openvino["float32"], encoder))
    assert found.score == pytest.approx(expected.score, abs=1e-4)
    assert [term.label for term in found.terms] == [term.label for term in expected.terms]


def test_layers_of_another_kind_are_refused(tmp_path):
    save_masked_lm(tmp_path, "modernbert")
    with pytest.raises(UnsupportedModelError, match=r"got the layers of a model of type 'modernbert'\. Use"):
        SpladeEncoder(tmp_path, backend="openvino")


def test_another_activation_is_refused(tmp_path):
    save_masked_lm(tmp_path, "bert", hidden_act="relu")
    with pytest.raises(UnsupportedModelError, match=r"must be GELU for backend='openvino', got ReLU"):
        SpladeEncoder(tmp_path, backend="openvino")


def test_bfloat16_is_refused_if_openvino_would_compute_in_float32(model_folder, monkeypatch):
    class OtherCpu(openvino.Core):
        def get_property(self, *names):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "Core", OtherCpu)
    with pytest.raises(ValueError, match=r"dtype='bfloat16' must run on a CPU that has bfloat16 instructions"):
        SpladeEncoder(model_folder, backend="openvino", dtype="bfloat16")


# NaN stands for a result that is wrong in any type. It is tried in the last of the types that this CPU computes.
@pytest.mark.parametrize(("dtype", "factor"), [("float32", 1.01), (DTYPES[-1], float("nan"))])
def test_other_results_are_refused(model_folder, monkeypatch, dtype, factor):
    own = OpenVinoLayers.states
    monkeypatch.setattr(OpenVinoLayers, "states", lambda *arguments: own(*arguments) * factor)
    with pytest.raises(UnsupportedModelError, match="must give the same logits with OpenVINO"):
        SpladeEncoder(model_folder, backend="openvino", dtype=dtype)


def test_an_older_openvino_is_refused_by_name(model_folder, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2025.4.1" if name == "openvino" else version(name))
    SpladeEncoder(model_folder)
    with pytest.raises(OptionalDependencyError, match=r"^openvino 2025\.4\.1 .* pip install 'openvino>=2026\.4,<2027'"):
        SpladeEncoder(model_folder, backend="openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "onnx"}, "backend must be torch or openvino, got 'onnx'"),
        ({"backend": "openvino", "dtype": "float16"}, "dtype must be float32, bfloat16 or int8 for backend='openvino'"),
        ({"backend": "openvino", "device": "cuda"}, "device must be cpu for backend='openvino', got 'cuda'"),
    ],
)
def test_options_that_do_not_go_together(model_folder, monkeypatch, options, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=message):
        SpladeEncoder(model_folder, **options)


def test_int8_is_refused_where_openvino_gains_nothing_by_it(model_folder, monkeypatch):
    monkeypatch.setattr(compute, "int8_weight_qmax", lambda: QMAX_7BIT)
    with pytest.raises(ValueError, match=r"VNNI or AMX instructions.* Use backend='torch'"):
        SpladeEncoder(model_folder, backend="openvino", dtype="int8")


def test_without_openvino(model_folder):
    code = f"""
from splade_integrations import OptionalDependencyError, SpladeEncoder
SpladeEncoder({model_folder!r})
try:
    SpladeEncoder({model_folder!r}, backend="openvino")
except OptionalDependencyError as err:
    print(err)
"""
    done = run_without({"openvino"}, code)
    pip_line = "pip install 'splade-integrations[openvino]'"
    assert done.stdout == f"backend='openvino' needs openvino. Install it with: {pip_line}.\n", done.stderr
