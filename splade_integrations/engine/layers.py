"""Computes the layers of BERT, RoBERTa, DistilBERT and similar models in few calls, with weights laid out for the CPU.

In the transformers library, a layer is a tree of about twenty modules. Calling these modules takes a fifth of the time
of encoding a short query. Here, a layer is one function. It computes the projections to queries, keys and values in one
matrix product, and changes large tensors in place instead of copying them.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from splade_integrations.engine.token_rows import TokenRows, pad_rows, rounded_up

__all__ = [
    "FusedLayer",
    "FusedLayers",
    "InPlaceGelu",
    "PackedLinear",
    "encoder_output",
    "fuse_layers",
    "has_fused_layers",
    "use_norm_kernel",
]


class PackedLinear(nn.Module):
    """A linear layer that keeps its weight in the layout of oneDNN's kernels, so that no call has to rearrange it.

    With nn.Linear, torch rearranges the weight in each call, or multiplies with a slower kernel. Either costs time, and
    the fewer tokens a call has, the more time it costs per token. The results differ from those of nn.Linear only by
    rounding, because the products are added in another order.

    Args:
        linear: The layer that this layer replaces.

    Example:
        >>> linear = nn.Linear(64, 32).requires_grad_(False)
        >>> inputs = torch.randn(2, 5, 64)
        >>> torch.allclose(PackedLinear(linear)(inputs), linear(inputs), atol=1e-5)
        True
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        # A weight in this layout cannot be moved to other devices or types, so it is not registered as a buffer.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        # A copy, because the original may lie in a weights file, which would then stay in memory.
        self._bias = None if linear.bias is None else linear.bias.detach().clone()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs, (…, N), for inputs of shape (…, K). The outputs have the weight's type."""
        tokens = inputs.reshape(-1, inputs.shape[-1])
        rows = pad_rows(tokens, rounded_up(len(tokens)))
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return outputs[: len(tokens)].view(*inputs.shape[:-1], outputs.shape[1])


class FusedLayer(nn.Module):
    """One transformer layer, in two parts: attention, and then two linear layers with an activation between them.

    The output of each part is added to the part's input, and the sum is normalised.

    Args:
        heads: The number of attention heads.
        projections: The projections to queries, keys and values, (H, H) each.
        attention_output: The linear layer at the end of attention. (H, H).
        attention_norm: The layer norm after attention, for vectors (…, H).
        intermediate: The first of the two linear layers. (H, I).
        activation: The activation between the two linear layers, for vectors (…, I).
        output: The second of the two linear layers. (I, H).
        output_norm: The layer norm after the two linear layers, for vectors (…, H).
    """

    def __init__(
        self,
        heads: int,
        projections: tuple[nn.Linear, nn.Linear, nn.Linear],
        attention_output: nn.Linear,
        attention_norm: nn.LayerNorm,
        intermediate: nn.Linear,
        activation: nn.Module,
        output: nn.Linear,
        output_norm: nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.projections = _joined(projections)
        self.attention_output = attention_output
        self.attention_norm: nn.Module = _AddedNorm(attention_norm)
        self.intermediate = intermediate
        self.activation = InPlaceGelu() if _is_gelu(activation) else activation
        self.output = output
        self.output_norm: nn.Module = _AddedNorm(output_norm)

    def forward(self, hidden: Tensor, tokens: TokenRows, mask: Tensor | None) -> Tensor:
        """Compute the next hidden states.

        Args:
            hidden: The hidden states, one row for each of `tokens`. (R, H).
            tokens: The layout of the batch of B texts of L tokens.
            mask: The attention mask, which broadcasts to (B, heads, L, L). None means that no token is masked.
        """
        hidden = self.attention_norm(self.attention_output(self._attend(hidden, tokens, mask)), hidden)
        output: Tensor = self.output_norm(self.output(self.activation(self.intermediate(hidden))), hidden)
        return output

    def _attend(self, hidden: Tensor, tokens: TokenRows, mask: Tensor | None) -> Tensor:
        """Return the output of attention, (R, H).

        This is a separate method, so that the memory of `projected` is freed when the method returns.
        """
        projected = tokens.put_back(self.projections(hidden)).view(tokens.batch, tokens.length, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # (B, heads, L, H / heads)
        attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return tokens.taken_from(attended.transpose(1, 2).flatten(2))


class _AddedNorm(nn.Module):
    """The layer norm of `outputs + residual`, where `residual` is the input of a part. It overwrites `outputs`."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, outputs: Tensor, residual: Tensor) -> Tensor:
        norm = self.norm  # calling `norm` itself would take longer than the call of `layer_norm` below
        return layer_norm(outputs.add_(residual), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class InPlaceGelu(nn.Module):
    """GELU that overwrites its input. This saves a copy of the widest activations."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.aten.gelu_(inputs)
        return outputs


class FusedLayers(nn.Module):
    """The layers of a model. It can replace the encoder (the stack of layers) of a model of transformers."""

    def __init__(self, layers: list[FusedLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Any:
        """Return what the encoder of a transformers model returns. `states` describes the arguments."""
        return encoder_output(self.states(hidden_states, attention_mask))

    def states(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the hidden states after the last layer.

        Args:
            hidden_states: The hidden states before the first layer. (B, L, H).
            attention_mask: (B, 1, L, L) or (B, 1, 1, L). None means that no token is masked.
        Returns:
            (B, L, H). The states of masked tokens have no meaning.
        """
        tokens = TokenRows.of(hidden_states, attention_mask)
        rows = tokens.taken_from(hidden_states)
        for layer in self.layer:
            rows = layer(rows, tokens, attention_mask)
        return tokens.put_back(rows)


def encoder_output(states: Tensor) -> Any:
    """Return hidden states as the encoder of a transformers model returns them."""
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions  # imports much (see bert.py)

    return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)


def _of_bert(layer: Any) -> FusedLayer:
    attention = layer.attention.self
    return FusedLayer(
        attention.num_attention_heads,
        (attention.query, attention.key, attention.value),
        layer.attention.output.dense,
        layer.attention.output.LayerNorm,
        layer.intermediate.dense,
        layer.intermediate.intermediate_act_fn,
        layer.output.dense,
        layer.output.LayerNorm,
    )


def _of_distilbert(layer: Any) -> FusedLayer:
    attention = layer.attention
    return FusedLayer(
        attention.n_heads,
        (attention.q_lin, attention.k_lin, attention.v_lin),
        attention.out_lin,
        layer.sa_layer_norm,
        layer.ffn.lin1,
        layer.ffn.activation,
        layer.ffn.lin2,
        layer.output_layer_norm,
    )


# {model type: (the attribute that holds the encoder, a function that makes a `FusedLayer` from a layer)}, for
# models that transformers built. (The layers of bert.py are fused from the start.) No other model types are fused,
# because their modules may have the same names but compute something else. The check in `optimize.py` uses short texts,
# so it would not notice a difference that affects only long texts.
_KINDS: dict[str, tuple[str, Callable[[Any], FusedLayer]]] = {
    **dict.fromkeys(("bert", "camembert", "electra", "roberta", "xlm-roberta"), ("encoder", _of_bert)),
    "distilbert": ("transformer", _of_distilbert),
}


def has_fused_layers(backbone: nn.Module) -> bool:
    """Return whether the layers of a model without its head are fused."""
    return any(isinstance(part, FusedLayers) for part in backbone.children())


def fuse_layers(backbone: Any) -> Callable[[], None] | None:
    """Replace a backbone's own layers with fused layers.

    Args:
        backbone: A model without its head.
    Returns:
        A function that restores the original layers, or None if the layers are not supported. Layers that a
        repository's own code defines are not supported. Even a model of a supported type can be configured to compute
        something that a fused layer does not. So the caller must compare the model's results before and after the
        replacement.
    """
    kind = _KINDS.get(backbone.config.model_type)
    if kind is None or getattr(backbone.config, "is_decoder", False):
        return None
    place, read = kind
    encoder = getattr(backbone, place)
    if not all(type(module).__module__.startswith(("transformers.", "torch.")) for module in encoder.modules()):
        return None
    setattr(backbone, place, FusedLayers([read(layer) for layer in encoder.layer]))
    return lambda: setattr(backbone, place, encoder)


def use_norm_kernel(backbone: Any) -> Callable[[], None] | None:
    """Let a Triton kernel compute the sums and their layer norms in all fused layers of a backbone.

    Args:
        backbone: A model without its head.
    Returns:
        A function that undoes the change, or None if the backbone has no fused layers.
    Raises:
        Exception: The kernel does not compile on this machine, or its result differs from torch's. In either case,
            nothing is changed.
    """
    layers = [module for module in backbone.modules() if isinstance(module, FusedLayer)]
    if not layers:
        return None
    from splade_integrations.engine.kernels.added_norm import AddedNormKernel, check_kernel  # imports Triton

    check_kernel(cast(nn.LayerNorm, layers[0].output_norm.norm))
    own = [(layer, name, getattr(layer, name)) for layer in layers for name in ("attention_norm", "output_norm")]
    for layer, name, added_norm in own:
        setattr(layer, name, AddedNormKernel(added_norm.norm))

    def undo() -> None:
        for layer, name, added_norm in own:
            setattr(layer, name, added_norm)

    return undo


def _is_gelu(activation: nn.Module) -> bool:
    if isinstance(activation, InPlaceGelu):
        return True
    from transformers.activations import GELUActivation  # imports Triton, which takes a second

    return isinstance(activation, GELUActivation) and activation.act is gelu


def _joined(linears: tuple[nn.Linear, ...]) -> nn.Linear:
    """Return one linear layer whose output is the concatenated output of several linear layers."""
    first = linears[0]
    joined = nn.Linear(first.in_features, sum(linear.out_features for linear in linears), device="meta")
    joined.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
    return joined
