"""Rebuilds a loaded masked LM: takes off its decoder, and puts faster layers in the place of its own.

A model is known by what it does: a change stays only if a probe, two short texts of which one is padded, gives what it
gave before; only what is asked to round (int8, and 16 bits in OpenVINO) is taken on trust. Knows transformers' models
and torch, nothing of files, pooling or texts of users.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from splade_integrations.engine.compute import Backend
from splade_integrations.engine.int8_linear import Int8Linear
from splade_integrations.engine.kernels import kernels_run
from splade_integrations.engine.layers import fuse_layers, use_norm_kernel
from splade_integrations.engine.openvino import use_openvino
from splade_integrations.engine.packed_linear import Linears, PackedLinear, packing_pays
from splade_integrations.engine.precision import exact_float32
from splade_integrations.errors import UnsupportedModelError

__all__ = ["rebuild"]

logger = logging.getLogger(__name__)

# The probe's tokens, those of each text, and the second one's real ones.
_TOKENS, _PADDED_TO, _REAL = 16, 8, 5


def rebuild(name: str, model: Any, dtype: torch.dtype, backend: Backend = "torch") -> tuple[nn.Linear | None, bool]:
    """Make a masked LM fast, and end it at what enters its decoder.

    Args:
        name: What the model was asked for by, for messages.
        model: The transformers model, which is changed. Its decoder becomes the identity.
        dtype: int8 quantises the body's linear layers; other types are what the weights have, or what OpenVINO makes
            of them.
        backend: What computes the body's layers.
    Returns:
        The decoder, or None where the head is more than a linear layer at its end: the model then gives logits still.
        And whether a padded text gives what it gives alone.
    Raises:
        UnsupportedModelError: int8, and the model reads its linear layers' weights by hand; or OpenVINO, and its layers
            are of another kind, have another activation than GELU, or give something else in float32.
        OptionalDependencyError: OpenVINO is not installed, or one that is too old.
    """
    probe = _Probe(model)
    with exact_float32(model.device):
        expected = probe()
        ignores_padding = _same(expected[_TOKENS:], expected[_PADDED_TO : _PADDED_TO + _REAL])
        fused = _keep_if_same(probe, expected, lambda: fuse_layers(model.base_model))
        if fused and kernels_run(model.device):
            _keep_if_same(probe, expected, lambda: use_norm_kernel(model.base_model))
        if backend == "openvino":
            expected = _use_openvino(name, model, probe, expected, dtype)
        quantize = dtype == torch.int8 and backend == "torch"
        quantized = model.base_model.modules() if quantize else ()
        if packing_pays(model.device, expected.dtype):
            _pack(model, probe, expected, but=[model.get_output_embeddings(), *quantized])
        decoder = _take_decoder(model, probe, probe())  # not `expected`, from which other sums may differ a little
        if quantize:
            _quantize(name, model, probe)
    return decoder, ignores_padding


class _Probe:
    """Two texts, the second one padded, and what a model makes of them."""

    def __init__(self, model: Any) -> None:
        rows = model.get_input_embeddings().weight.shape[0]
        self._model = model
        self._ids = torch.arange(_TOKENS, device=model.device).reshape(2, _PADDED_TO) * (rows // (_TOKENS + 1))
        self._mask = torch.ones_like(self._ids)
        self._mask[1, _REAL:] = 0

    def __call__(self) -> Tensor:
        """Of both together, then of the second alone, unmasked. (tokens, V), or what enters the decoder."""
        together = self._model(input_ids=self._ids, attention_mask=self._mask, return_dict=True).logits
        ids, mask = self._ids[1:, :_REAL], self._mask[1:, :_REAL]
        alone = self._model(input_ids=ids, attention_mask=mask, return_dict=True).logits
        return torch.cat([together.flatten(0, 1), alone.flatten(0, 1)])


def _same(found: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by roundings only: of each layer, which are as large as the largest number's."""
    if found.shape != expected.shape:
        return False
    share = 1e-4 if found.dtype == torch.float32 else 8 * torch.finfo(found.dtype).eps
    return bool((found - expected).abs().max() <= share * expected.abs().max().clamp_min(1))  # not so for NaN


def _keep_if_same(probe: _Probe, expected: Tensor, change: Callable[[], Callable[[], None] | None]) -> bool:
    """Make a change that returns how to undo it, or None where it made none; undo it where the probe tells it."""
    undo, why = None, "it gives another result"
    try:
        undo = change()
        if undo is None or _same(probe(), expected):
            return undo is not None
    except Exception as err:  # the model reads weights by hand, say, or shapes do not fit
        why = str(err)
    logger.info("A part stays as transformers made it, and is slower: %s.", why)
    if undo is not None:
        undo()
    return False


def _use_openvino(name: str, model: Any, probe: _Probe, expected: Tensor, dtype: torch.dtype) -> Tensor:
    """Have OpenVINO compute the body's layers. What the probe gives then: what it gave, where that is float32."""
    if not use_openvino(model.base_model, dtype):
        raise UnsupportedModelError(
            f"{name!r} must have layers as transformers has them for BERT, RoBERTa, DistilBERT or their kin for "
            f"backend='openvino', got others, of model type {model.config.model_type!r}. Use backend='torch'."
        )
    found = probe()
    right = _same(found, expected) if dtype == torch.float32 else found.isfinite().all()
    if not right:
        raise UnsupportedModelError(
            f"{name!r} must give the same by OpenVINO, got logits that differ by up to "
            f"{(found - expected).abs().max():.1g}. Use backend='torch'."
        )
    return found


def _pack(model: Any, probe: _Probe, expected: Tensor, but: list[nn.Module]) -> None:
    """Lay out the weights of linear layers for the processor, but where the model reads them by hand, as heads may."""
    for part in (model, model.base_model):

        def replace(part: nn.Module = part) -> Callable[[], None]:
            linears = Linears(part, but)
            linears.replace(PackedLinear)
            return linears.put_back

        if _keep_if_same(probe, expected, replace):
            return


def _take_decoder(model: Any, probe: _Probe, expected: Tensor) -> nn.Linear | None:
    """Replace the model's last linear layer by the identity and return it; None where that changes the maths.

    Nearly every masked-LM head ends in one linear layer from hidden size to vocabulary. Some do more after it, or use
    its weights by hand. So the claim is checked on a probe: decoder(what enters it) must be the model's own logits.
    """
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear):
        return None
    path = next(path for path, module in model.named_modules() if module is decoder)
    parent, _, child = path.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, child, nn.Identity())
    try:
        same = _same(linear(probe(), decoder.weight, decoder.bias), expected)
    except Exception:  # the head reads the decoder's weights, say, or the shapes do not fit
        same = False
    if not same:
        setattr(owner, child, decoder)
        return None
    return decoder


def _quantize(name: str, model: Any, probe: _Probe) -> None:
    """Make the body's linear layers int8, and see that it calls them as layers: some read their weights by hand.

    The head's own layer stays float32: little work, and what it rounds goes straight into the weights.
    """
    Linears(model.base_model).replace(Int8Linear)
    try:
        probe()
    except AttributeError as err:
        raise UnsupportedModelError(
            f"{name!r} must call its linear layers for dtype='int8', but reads their weights: {err}. "
            "Use dtype='bfloat16'."
        ) from err
