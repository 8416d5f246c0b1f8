"""Computes BERT's layers with OpenVINO.

In int8, OpenVINO multiplies, rescales and rounds in one pass over memory, while torch needs several passes. This module
turns the layers of `layers.py` into a model of OpenVINO. OpenVINO is imported only when an `OpenVinoLayers` object is
made.
"""

from collections.abc import Sequence
from math import gcd
from typing import Any, cast

import torch
from torch import Tensor, nn

from splade_integrations.dependencies import check_installed, require_extra
from splade_integrations.engine.compute import Precision
from splade_integrations.engine.int8_gemm import quantize
from splade_integrations.engine.layers import (
    FusedLayer,
    FusedLayers,
    InPlaceGelu,
    encoder_output,
    pad_rows,
    rounded_up,
    seen_tokens,
)
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.forks import ForkSafeLock

__all__ = ["OpenVinoLayers", "use_openvino"]


def use_openvino(backbone: Any, precision: Precision) -> bool:
    """Let OpenVINO compute the fused layers of a backbone.

    Args:
        backbone: A model without its head, on a CPU, in float32.
        precision: As in `OpenVinoLayers`.
    Returns:
        Whether the backbone has fused layers.
    """
    for name, module in backbone.named_children():
        if isinstance(module, FusedLayers):
            setattr(backbone, name, OpenVinoLayers([cast(FusedLayer, layer) for layer in module.layer], precision))
            return True
    return False


class OpenVinoLayers(nn.Module):
    """Fused layers on a CPU. It replaces `FusedLayers`, and is called with the same arguments.

    In int8, a token's numbers are divided into groups, and each group has its own scale. So other tokens do not affect
    how a token is rounded. Everything between the int8 products is computed in bfloat16 if the processor supports it.
    OpenVINO uses the number of threads that torch has when the layers are made.

    Args:
        layers: The layers, whose float32 weights are copied.
        precision: The number type of the products: "float32", "bfloat16" or "int8".
    Raises:
        OptionalDependencyError: OpenVINO is not installed, or its version is too old.
        UnsupportedModelError: An activation is not GELU.
    """

    def __init__(self, layers: Sequence[FusedLayer], precision: Precision) -> None:
        super().__init__()
        check_installed("openvino")
        with require_extra("openvino", module="backend='openvino'"):
            import openvino
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        if precision == "int8":
            # The group size is the number of elements that share a scale. In common models it is half of the hidden
            # size. Compared with one scale per token, this takes the same time and reduces rounding errors by a tenth.
            # If the group size is not set, or not a multiple of 16, OpenVINO stores weights in int8 but multiplies in a
            # wider type.
            widths = {linear.in_features for layer in layers for linear in (layer.intermediate, layer.output)}
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = gcd(*widths) // 2
        else:
            settings["INFERENCE_PRECISION_HINT"] = "f32" if precision == "float32" else "bf16"
        graph = _GraphBuilder(int8=precision == "int8").graph(layers)
        self._request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
        self._lock = ForkSafeLock()  # an infer request serves one caller at a time, with all of OpenVINO's threads

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        """Return what the encoder of a transformers model returns. `states` describes the arguments."""
        return encoder_output(self.states(hidden_states, attention_mask))

    def states(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the hidden states after the last layer.

        Args:
            hidden_states: The hidden states before the first layer. (B, L, H) float32.
            attention_mask: (B, 1, L, L) or (B, 1, 1, L). With None, every token attends to all tokens.
        """
        batch, length, _width = hidden_states.shape
        # OpenVINO compiles kernels for each new shape, which takes some milliseconds and up to a megabyte. So texts are
        # padded to one of a few lengths.
        longest = rounded_up(length)
        seen = torch.zeros((batch, 1, 1, longest), dtype=torch.bool, device=hidden_states.device)
        seen[:, 0, 0, :length] = True if attention_mask is None else seen_tokens(attention_mask)
        with self._lock:
            outputs = self._request.infer([pad_rows(hidden_states, longest).numpy(), seen.numpy()])[0]
        return torch.from_numpy(outputs)[:, :length]


class _GraphBuilder:
    """Builds an OpenVINO model from fused layers.

    Args:
        int8: Whether linear layers hold their weights in int8, with a scale for each output.
    """

    def __init__(self, *, int8: bool) -> None:
        import openvino
        from openvino import opset13

        self._openvino, self._ops, self._int8 = openvino, opset13, int8

    def graph(self, layers: Sequence[FusedLayer]) -> Any:
        """Return a model that turns hidden states, (B, L, H), and a mask, (B, 1, 1, L), into the last hidden states."""
        openvino, ops = self._openvino, self._ops
        shape = openvino.PartialShape([-1, -1, layers[0].output.out_features])
        hidden = inputs = ops.parameter(shape, openvino.Type.f32)
        seen = ops.parameter(openvino.PartialShape([-1, 1, 1, -1]), openvino.Type.boolean)
        for layer in layers:
            attended = self._linear(self._attend(hidden, seen, layer), layer.attention_output)
            hidden = self._normalise(ops.add(attended, hidden), layer.attention_norm)
            between = self._activate(self._linear(hidden, layer.intermediate), layer.activation)
            hidden = self._normalise(ops.add(self._linear(between, layer.output), hidden), layer.output_norm)
        return openvino.Model([ops.result(hidden)], [inputs, seen], "layers")

    def _attend(self, hidden: Any, seen: Any, layer: FusedLayer) -> Any:
        ops, width = self._ops, layer.output.out_features
        by_heads = ops.constant([0, 0, layer.heads, width // layer.heads])
        swapped = ops.constant([0, 2, 1, 3])  # swaps tokens and heads
        # Queries, keys and values are computed by separate products, because splitting a joint product takes
        # longer in OpenVINO.
        weights, biases = torch.split(layer.projections.weight, width), torch.split(layer.projections.bias, width)
        products = [self._product(hidden, *part) for part in zip(weights, biases, strict=True)]
        projected = [ops.transpose(ops.reshape(product, by_heads, True), swapped) for product in products]
        attended = ops.scaled_dot_product_attention(*projected, seen)  # (B, heads, L, H / heads)
        return ops.reshape(ops.transpose(attended, swapped), ops.constant([0, 0, width]), True)

    def _linear(self, inputs: Any, linear: nn.Linear) -> Any:
        return self._product(inputs, linear.weight, linear.bias)

    def _product(self, inputs: Any, weight: Tensor, bias: Tensor) -> Any:
        ops = self._ops
        factor = self._constant(weight)
        if self._int8:
            integers, scale = quantize(weight.detach(), weight.detach().abs().amax(dim=1, keepdim=True))
            factor = ops.multiply(ops.convert(self._constant(integers), "f32"), self._constant(scale))
        return ops.add(ops.matmul(inputs, factor, False, True), self._constant(bias))

    def _normalise(self, inputs: Any, added_norm: Any) -> Any:
        ops, norm = self._ops, added_norm.norm
        centred = ops.mvn(inputs, ops.constant([-1]), True, norm.eps, "inside_sqrt")
        return ops.add(ops.multiply(centred, self._constant(norm.weight)), self._constant(norm.bias))

    def _activate(self, inputs: Any, activation: nn.Module) -> Any:
        if not isinstance(activation, InPlaceGelu):
            raise UnsupportedModelError(
                f"the activation between linear layers must be GELU for backend='openvino', got {activation}. "
                "Use backend='torch'."
            )
        return self._ops.gelu(inputs, "erf")

    def _constant(self, numbers: Tensor) -> Any:
        return self._ops.constant(numbers.detach().numpy())
