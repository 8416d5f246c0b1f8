"""Makes a loaded masked LM fast. It replaces layers by faster layers, and separates the decoder from the model.

The decoder is the last linear layer. Each change is checked with a probe, which is two short texts, one of them padded.
A change stays only if the model's output for the probe is the same as before, except for rounding. Changes that round
on purpose (int8, and 16 bits in OpenVINO) are not compared. This module handles models, but no files, pooling or
users' texts.
"""

import logging
import platform
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from splade_integrations.engine.compute import Compute
from splade_integrations.engine.fusing import fuse_layers, use_norm_kernel
from splade_integrations.engine.int8_linear import Int8Linear
from splade_integrations.engine.kernels import kernels_run
from splade_integrations.engine.layers import PackedLinear, has_fused_layers
from splade_integrations.engine.memory import own_parameters, parameter_bytes
from splade_integrations.engine.openvino import use_openvino
from splade_integrations.engine.products import exact_float32
from splade_integrations.errors import UnsupportedModelError

__all__ = ["Linears", "optimize", "packing_pays"]

logger = logging.getLogger(__name__)

# The numbers of tokens: of the whole probe, of each of its two texts with padding, and of the second text without
# padding.
_TOKENS, _PADDED_TO, _REAL = 16, 8, 5


def optimize(name: str, model: Any, compute: Compute) -> tuple[nn.Linear | None, bool]:
    """Make a masked LM fast, and take off its decoder.

    Args:
        name: The name under which the model was requested, for messages.
        model: The model, which is changed. Its decoder is replaced by the identity.
        compute: Where and how the model computes.
    Returns:
        The decoder, and whether padding leaves a text's results unchanged. The decoder is None if the head does not end
        in a plain linear layer. Then the model still returns logits.
    Raises:
        UnsupportedModelError: With int8: the model reads the weights of its linear layers instead of calling the
            layers. With OpenVINO: the layers are not supported, their activation is not GELU, the results are not
            finite, or the results in float32 differ from torch's.
        OptionalDependencyError: OpenVINO is not installed, or its version is too old.
    """
    before = parameter_bytes(model)
    probe = _Probe(model)
    with exact_float32(compute.device):
        expected = probe()
        ignores_padding = _same(expected[-_REAL:], expected[_PADDED_TO : _PADDED_TO + _REAL])
        fused = has_fused_layers(model.base_model)
        fused = fused or _keep_if_same(probe, expected, lambda: fuse_layers(model.base_model))
        if fused and kernels_run(compute.device):
            _keep_if_same(probe, expected, lambda: use_norm_kernel(model.base_model))
        if compute.by_openvino:
            expected = _use_openvino(name, model, probe, expected, compute)
        if packing_pays(compute.device, expected.dtype):
            quantized_later = model.base_model.modules() if compute.quantizes_linears else ()
            _pack(model, probe, expected, but=[model.get_output_embeddings(), *quantized_later])
        decoder = _take_decoder(model, probe, probe())  # the probe runs again, because packing may change rounding
        if compute.quantizes_linears:
            _quantize(name, model, probe)
    left = [model] if decoder is None else [model, decoder]
    if compute.device.type == "cpu" and 2 * parameter_bytes(*left) < before:
        own_parameters(*left)
    return decoder, ignores_padding


def packing_pays(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether this processor has kernels for packed weights (see `_pack`) of `dtype`."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    operations = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(operations, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(operations._is_mkldnn_bf16_supported()))


class Linears:
    """The linear layers of a model, which can be replaced and put back.

    Args:
        model: The model, or a part of it.
        but: Layers to leave out.
    """

    def __init__(self, model: nn.Module, but: Iterable[nn.Module] = ()) -> None:
        left_out = set(but)
        self._places = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if type(child) is nn.Linear and child not in left_out
        ]

    def replace(self, make: Callable[[nn.Linear], nn.Module]) -> None:
        """Replace each layer by `make(layer)`. If a layer is used in several places, they share one replacement."""
        made: dict[nn.Linear, nn.Module] = {}
        for _, _, child in self._places:
            if child not in made:
                made[child] = make(child)
        for parent, name, child in self._places:
            setattr(parent, name, made[child])

    def put_back(self) -> None:
        """Restore the original layers."""
        for parent, name, child in self._places:
            setattr(parent, name, child)


class _Probe:
    """Two short texts, the second one padded. Calling the probe runs the model on them."""

    def __init__(self, model: Any) -> None:
        rows = model.get_input_embeddings().weight.shape[0]
        self._model = model
        self._ids = torch.arange(_TOKENS, device=model.device).reshape(2, _PADDED_TO) * (rows // (_TOKENS + 1))
        self._mask = torch.ones_like(self._ids)
        self._mask[1, _REAL:] = 0

    def __call__(self) -> Tensor:
        """Return the outputs for both texts in one batch, followed by those for the second text alone without padding.

        The outputs are logits. After the decoder is taken off, they are the hidden states that enter the decoder.

        Returns:
            (_PADDED_TO + 2 · _REAL, V or H). The outputs for padding are left out, because they have no meaning.
        """
        together = self._model(input_ids=self._ids, attention_mask=self._mask, return_dict=True).logits
        ids, mask = self._ids[1:, :_REAL], self._mask[1:, :_REAL]
        alone = self._model(input_ids=ids, attention_mask=mask, return_dict=True).logits
        return torch.cat([together[0], together[1, :_REAL], alone[0]])


def _same(found: Tensor, expected: Tensor) -> bool:
    """Return whether two results differ at most by rounding: by a small share of the largest expected number."""
    if found.shape != expected.shape:
        return False
    share = 1e-4 if found.dtype == torch.float32 else 8 * torch.finfo(found.dtype).eps
    return bool((found - expected).abs().max() <= share * expected.abs().max().clamp_min(1))  # False for NaN


def _keep_if_same(probe: _Probe, expected: Tensor, change: Callable[[], Callable[[], None] | None]) -> bool:
    """Apply a change, and undo it if the probe's output differs.

    Args:
        probe: The probe.
        expected: The probe's output before the change.
        change: A function that applies the change. It returns a function that undoes the change, or None if it changed
            nothing.
    Returns:
        Whether the change stays.
    """
    undo, why = None, "the faster part gives another result"
    try:
        undo = change()
        if undo is None or _same(probe(), expected):
            return undo is not None
    except Exception as err:  # for example, the model reads weights itself, or shapes do not fit
        why = str(err)
    logger.info("A part of the model is not replaced by a faster one: %s.", why)
    if undo is not None:
        undo()
    return False


def _use_openvino(name: str, model: Any, probe: _Probe, expected: Tensor, compute: Compute) -> Tensor:
    """Let OpenVINO compute the layers of the backbone (the model without its head), and return the probe's new output.

    In float32, the new output must be the same as the previous output. In other types, it must be finite.
    """
    if not use_openvino(model.base_model, compute.precision):
        raise UnsupportedModelError(
            f"{name!r} must have the layers of BERT, RoBERTa, DistilBERT or a similar transformers model for "
            f"backend='openvino', got the layers of a model of type {model.config.model_type!r}. Use backend='torch'."
        )
    found = probe()
    correct = _same(found, expected) if compute.precision == "float32" else found.isfinite().all()
    if not correct:
        raise UnsupportedModelError(
            f"{name!r} must give the same logits with OpenVINO as with torch, got logits that differ by up to "
            f"{(found - expected).abs().max():.1g}. Use backend='torch'."
        )
    return found


def _pack(model: Any, probe: _Probe, expected: Tensor, but: list[nn.Module]) -> None:
    """Pack linear layers, which means to store their weights in the layout that suits the processor.

    If the head reads its weights instead of calling its layers, only the backbone's layers are packed.
    """
    for part in (model, model.base_model):

        def replace(part: nn.Module = part) -> Callable[[], None]:
            linears = Linears(part, but)
            linears.replace(PackedLinear)
            return linears.put_back

        if _keep_if_same(probe, expected, replace):
            return


def _take_decoder(model: Any, probe: _Probe, expected: Tensor) -> nn.Linear | None:
    """Replace the model's last linear layer by the identity, and return that layer.

    Nearly every masked-LM head ends in one linear layer from hidden size to vocabulary. Some heads compute more after
    this layer, or read its weights themselves. So the layer is applied to the changed model's output for the probe, and
    must return the original logits. If it does not, the model stays as it was, and the result is None.
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
    except Exception:  # for example, the head reads the decoder's weights, or shapes do not fit
        same = False
    if not same:
        setattr(owner, child, decoder)
        return None
    return decoder


def _quantize(name: str, model: Any, probe: _Probe) -> None:
    """Replace the backbone's linear layers by int8 layers, and check that the model calls them as layers.

    Some models read the weights of their layers instead. The head's linear layer before the decoder stays float32. This
    layer takes little time, and in int8 its rounding errors would go directly into the term weights.
    """
    Linears(model.base_model).replace(Int8Linear)
    try:
        probe()
    except AttributeError as err:
        raise UnsupportedModelError(
            f"{name!r} must call its linear layers for dtype='int8', got a model that reads their weights: {err}. "
            "Use dtype='bfloat16'."
        ) from err
