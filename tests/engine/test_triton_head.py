"""The Triton head equals the plain head. Without a GPU, Triton's interpreter runs the kernel."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from splade_integrations.engine.heads import Decoder, MaxPoolHead, TritonHead, choose
from splade_integrations.engine.heads import triton as triton_head
from splade_integrations.engine.kernels import kernels_run

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that Triton can compile for")


def batch(lengths, width, vocabulary, dtype=torch.float32, seed=0):
    """Return hidden states, lengths, decoder weight and bias. The padding is large enough to win every maximum."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), max(lengths), width, generator=generator)
    lengths = torch.tensor(lengths)
    hidden[torch.arange(hidden.shape[1]) >= lengths.unsqueeze(1)] = 1e4
    weight = torch.randn(vocabulary, width, generator=generator)
    bias = torch.randn(vocabulary, generator=generator)
    return hidden.to(DEVICE, dtype), lengths.to(DEVICE), weight.to(DEVICE, dtype), bias.to(DEVICE, dtype)


def assert_equal_to_plain(hidden, lengths, weight, bias, activation_function="relu"):
    """Assert that the Triton head equals the plain head in float32 on the same numbers, and return its weights."""
    found = TritonHead(Decoder(weight, bias), activation_function)(hidden, lengths)
    exact_bias = None if bias is None else bias.float()
    expected = MaxPoolHead(Decoder(weight.float(), exact_bias), activation_function)(hidden.float(), lengths)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    return found


@needs_triton
@pytest.mark.parametrize(
    ("lengths", "width", "vocabulary"),
    [
        ([1], 32, 3),  # one token, and fewer terms than a tile has
        ([37, 1, 16, 17, 30], 40, 70),  # several blocks of tokens; no block divides the hidden size or the vocabulary
        ([3, 3, 2, 1, 3, 3, 1, 2, 2], 32, 33),  # several texts in a tile, and the last tile is not full
        ([17, 3, 17, 1, 9, 2, 17, 17], 32, 33),
        ([50], 64, 32),
        ([9, 2], 7, 300),  # a hidden size below the block's; more than one group of TOGETHER tiles
    ],
)
def test_ragged_texts(lengths, width, vocabulary):
    assert_equal_to_plain(*batch(lengths, width, vocabulary))


@needs_triton
@pytest.mark.parametrize(
    ("texts", "longest", "span", "maxima_bytes"),
    [(21, 9, 4, 2**26), (21, 23, 8, 4 * 3 * 40 * 12), (21, 39, 8, 2**26), (5, 35, 16, 1)],
    ids=["all texts at once", "twelve, then nine", "many spans", "one by one"],
)
def test_tiles_of_several_texts_and_texts_of_several_tiles(texts, longest, span, maxima_bytes, monkeypatch):
    """The maxima of a long text's parts are combined for all texts at once, or for some texts at a time."""
    from splade_integrations.engine.kernels import max_logits

    monkeypatch.setattr(max_logits, "LEAST_SPAN_OF_SEVERAL", 4)
    monkeypatch.setattr(max_logits, "MAXIMA_BYTES", maxima_bytes)
    if DEVICE == "cpu":  # a GPU's tiles are larger
        tokens = max_logits.INTERPRETER_BLOCKS.tokens
        assert max_logits.tokens_per_tile(texts, longest, tokens) == span
        assert span < min(longest, tokens)
    lengths = torch.linspace(1, longest, texts).round().long().tolist()
    assert_equal_to_plain(*batch(lengths, 24, 40))


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_weights_are_summed_in_float32(dtype):
    hidden, lengths, weight, bias = batch([20, 3, 11], 48, 40, dtype)
    assert_equal_to_plain(hidden, lengths, weight, bias)
    # A sum of ones stops at 2048 in float16, because 2048 + 1 is rounded to 2048. In bfloat16 it stops at 256.
    ones = torch.ones(1, 1, 3000, dtype=dtype, device=DEVICE)
    found = TritonHead(Decoder(ones[0]))(ones, torch.tensor([1], device=DEVICE))
    assert found.expm1().item() == pytest.approx(3000, rel=1e-6)


@needs_triton
def test_maxima_that_are_all_negative():
    hidden, lengths, weight, _ = batch([18, 2], 16, 20)
    hidden, weight = hidden.abs(), -weight.abs()
    assert not assert_equal_to_plain(hidden, lengths, weight, None).any()
    # This bias makes all logits positive, so the weights show every maximum. If the unused part of a block counted, its
    # logit before the bias would be 0, and the weight would be log(1 + 100) = 4.615.
    assert (assert_equal_to_plain(hidden, lengths, weight, torch.full((20,), 100.0, device=DEVICE)) < 4.61).all()


@needs_triton
def test_the_double_log_and_strided_input():
    hidden, lengths, weight, bias = batch([7, 12], 32, 25)
    spread = torch.stack([hidden, hidden], dim=-1)[..., 0]
    assert not spread.is_contiguous()
    assert_equal_to_plain(spread, lengths, weight.T.contiguous().T, bias, "log1p_relu")


@needs_triton
def test_neighbours_and_threads_change_nothing():
    hidden, lengths, weight, bias = batch([17, 9, 12, 3, 2], 40, 50)
    whole = TritonHead(Decoder(weight, bias))(hidden, lengths)

    def alone(text):
        return TritonHead(Decoder(weight, bias))(hidden[text : text + 1, : lengths[text]], lengths[[text]])

    with ThreadPoolExecutor(3) as pool:
        rows = list(pool.map(alone, range(5)))
    # On a GPU the bits are equal. The interpreter uses numpy's products, which do not promise equal bits.
    torch.testing.assert_close(torch.cat(rows), whole, atol=0 if DEVICE == "cuda" else 1e-6, rtol=0)


@needs_triton
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(value):
    hidden, lengths, weight, bias = batch([20, 20, 4], 16, 20)
    hidden[1, 3, 5] = value
    found = TritonHead(Decoder(weight, bias))(hidden, lengths)
    assert not found[1].isfinite().all()
    assert found[[0, 2]].isfinite().all()


@needs_triton
@pytest.mark.parametrize(
    ("texts", "longest", "span"),
    [(32, 128, 128), (1, 512, 256), (32, 130, 32), (110, 310, 64), (64, 20, 32), (64, 12, 16), (64, 1, 8)],
)
def test_a_tile_takes_the_tokens_that_need_the_fewest_tiles(texts, longest, span):
    """A text that needs several tiles has at least 32 tokens in each, so that few maxima must be combined."""
    from splade_integrations.engine.kernels.max_logits import tokens_per_tile

    assert tokens_per_tile(texts, longest, 256) == span


@needs_triton
@pytest.mark.parametrize("tokens", [256, 128])
def test_the_probe_takes_every_span_and_several_of_those_that_may_be_several(tokens):
    from splade_integrations.engine.kernels import max_logits

    spans = {
        length: max_logits.tokens_per_tile(triton_head.PROBED_TEXTS, length, tokens)
        for length in triton_head.PROBED_LENGTHS
    }
    assert set(spans.values()) == {tokens >> halvings for halvings in range(6)}
    several = {span for length, span in spans.items() if length > span}
    assert several == {span for span in spans.values() if span >= max_logits.LEAST_SPAN_OF_SEVERAL}


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from splade_integrations.engine.kernels.added_norm import add_and_normalize_kernel
from splade_integrations.engine.kernels.max_logits import BLOCKS, max_logits_kernel

def compiled(kernel, capability, pointers, constants, types=(), **options):
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = {places[name]: [["tt.divisibility", 16]] for name in (*pointers, "width")}
    signature = {n: "constexpr" if n in constants else (pointers | dict(types)).get(n, "i32") for n in places}
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)

for argument in sys.argv[1:]:
    capability, room = map(int, argument.split(":"))
    terms, tokens, width, warps, stages = next(b for b in BLOCKS if b.bytes(2) <= room * 1024)
    constants = {"BLOCK_V": terms, "BLOCK_T": tokens, "BLOCK_K": width, "TOGETHER": 8, "PROGRAMS": 132}
    pointers = {"hidden": "*fp16", "weight": "*fp16", "maxima": "*fp32"}
    for span in (tokens, tokens // 32):
        constants |= {"SPAN": span, "WHOLE_BLOCKS": True}
        types = {"lengths": "*i32"}
        done = compiled(max_logits_kernel, capability, pointers, constants, types, num_warps=warps, num_stages=stages)
        assert done.metadata.shared <= room * 1024, (capability, span, done.metadata.shared)
    instructions = ("mma.sync", "wgmma.mma_async", "tcgen05.mma", "cp.async", "max.NaN.f32", "max.f32")
    print(capability, f"{terms}x{tokens}", *(name for name in instructions if name in done.asm["ptx"]))
    pointers = dict.fromkeys(("outputs", "residual", "weight", "bias"), "*bf16")
    compiled(add_and_normalize_kernel, capability, pointers, {"BLOCK": 1024}, {"eps": "fp32"}, num_warps=2)
"""


@needs_triton
def test_compiles_without_a_gpu_for_each_generation():
    """The head's kernel compiles to tensor-core products, fits into shared memory and keeps NaNs.

    The kernel that adds and normalises must only compile.
    """
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    generations = ["80:163", "89:99", "90:227", "100:227", "120:99"]  # compute capability, KiB of shared memory
    command = [sys.executable, "-c", COMPILE, *generations]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "80 128x256 mma.sync cp.async max.NaN.f32",
        "89 128x128 mma.sync cp.async max.NaN.f32",
        "90 128x256 wgmma.mma_async cp.async max.NaN.f32",
        "100 128x256 tcgen05.mma cp.async max.NaN.f32",
        "120 128x128 mma.sync cp.async max.NaN.f32",
    ]


def test_a_processor_takes_the_plain_head(caplog):
    assert not kernels_run(torch.device("cpu"))
    assert not TritonHead.suits(torch.zeros(5, 4).half())
    assert not caplog.records


def fails(self, hidden, lengths):
    raise RuntimeError("no compiler")


def off_by_a_thousandth(self, hidden, lengths):
    return MaxPoolHead(Decoder(self._weight.float()))(hidden.float(), lengths) * 1.001


@pytest.mark.parametrize(
    ("head", "words"),
    [(fails, "fails here.*no compiler"), (off_by_a_thousandth, "differ from the plain head's by 1.0e-03")],
)
def test_a_kernel_that_fails_or_differs_is_not_used(head, words, monkeypatch, caplog):
    """Break the kernel on purpose, because a kernel that works does not show how the probe reacts to faults."""
    monkeypatch.setattr(TritonHead, "__call__", head)
    monkeypatch.setattr(triton_head, "kernels_run", lambda device: True)
    with caplog.at_level(logging.WARNING):
        assert not TritonHead.suits(torch.randn(40, 16))
        assert not caplog.records  # the head does not suit float32, so nothing is probed
        assert not TritonHead.suits(torch.randn(40, 16).half())
    assert len(caplog.records) == 1
    assert "Triton head" in caplog.records[0].getMessage()
    assert re.search(words, caplog.records[0].getMessage())


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gpu_takes_the_kernel(dtype):
    weight = torch.randn(30522, 768, device=DEVICE, dtype=dtype) / 28
    assert isinstance(choose(Decoder(weight), "max", "relu"), TritonHead)
    hidden, lengths, *_ = batch([512, 128, 77, 1] * 8, 768, 1, dtype)
    first = TritonHead(Decoder(weight))(hidden, lengths)
    torch.testing.assert_close(first, TritonHead(Decoder(weight))(hidden, lengths), atol=0, rtol=0)
    expected = MaxPoolHead(Decoder(weight.float()))(hidden.float(), lengths)
    torch.testing.assert_close(first, expected, atol=1e-4, rtol=1e-4)


@needs_gpu
@pytest.mark.parametrize("longest", [128, 190, 512])
def test_a_gpu_never_writes_the_logits(longest):
    weight = torch.randn(30522, 128, device=DEVICE, dtype=torch.float16)
    hidden, lengths, *_ = batch([longest] * 32, 128, 1, torch.float16)
    TritonHead(Decoder(weight))(hidden, lengths)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    TritonHead(Decoder(weight))(hidden, lengths)
    assert torch.cuda.max_memory_allocated() - before < 32 * longest * 30522 * 2 / 10
