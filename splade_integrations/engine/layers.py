"""The layers of BERT, RoBERTa, DistilBERT and their kin, in as few calls as they need. Knows their modules and torch.

transformers writes a layer as a tree of some twenty modules, whose calls are a fifth of a short query's time. Here a
layer is one function, its three projections are one product, and what is large is changed in place.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions as EncoderOutput

from splade_integrations.engine.packed_linear import rounded_up, with_rows

__all__ = ["FusedLayer", "FusedLayers", "InPlaceGelu", "fuse_layers", "use_norm_kernel"]


class FusedLayer(nn.Module):
    """One layer: attention, then two linear layers, each added to what it read and normalised.

    Args:
        heads: Of attention.
        projections: To queries, keys and values, (H, H) each.
        attention_output: (H, H).
        attention_norm: Of (…, H).
        intermediate: (H, I).
        activation: Of (…, I).
        output: (I, H).
        output_norm: Of (…, H).
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

    def forward(self, hidden: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
        """Hidden states to the next ones.

        Args:
            hidden: Of all tokens, and maybe of some more that are none. (B L or more, H).
            shape: (B, L, H).
            mask: Broadcasts to (B, heads, L, L); None hides nothing.
        """
        hidden = self.attention_norm(self.attention_output(self._attend(hidden, shape, mask)), hidden)
        output: Tensor = self.output_norm(self.output(self.activation(self.intermediate(hidden))), hidden)
        return output

    def _attend(self, hidden: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
        """What attention gathers for each token. As `hidden`. A method, so that the projections are freed early."""
        batch, length, _ = shape
        tokens = batch * length
        projected = self.projections(hidden)[:tokens].view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = projected  # (B, heads, L, H / heads)
        attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2)
        return with_rows(attended.flatten(2).flatten(0, 1), len(hidden))


class _AddedNorm(nn.Module):
    """Layer norm of a sum, which overwrites the first of its two terms."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, outputs: Tensor, residual: Tensor) -> Tensor:
        norm = self.norm  # its function, not its call: there are two a layer
        return layer_norm(outputs.add_(residual), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class InPlaceGelu(nn.Module):
    """GELU, which spares the widest activations a copy."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.aten.gelu_(inputs)
        return outputs


class FusedLayers(nn.Module):
    """In the place of a transformers encoder, whose call it takes."""

    def __init__(self, layers: list[FusedLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any) -> EncoderOutput:
        shape = hidden_states.shape
        tokens = hidden_states.flatten(0, 1)
        if tokens.device.type == "cpu":
            # Once, and not in each product, which would do it (`PackedLinear`). These rows are thrown away at the end.
            tokens = with_rows(tokens, rounded_up(len(tokens)))
        for layer in self.layer:
            tokens = layer(tokens, shape, attention_mask)
        return EncoderOutput(last_hidden_state=tokens[: shape[0] * shape[1]].view(shape))


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


# By model type: where the encoder is, and how a layer is read. Others may have modules of the same names that do more,
# on long texts only, where no short probe would tell.
_KINDS: dict[str, tuple[str, Callable[[Any], FusedLayer]]] = {
    **dict.fromkeys(("bert", "camembert", "electra", "roberta", "xlm-roberta"), ("encoder", _of_bert)),
    "distilbert": ("transformer", _of_distilbert),
}


def fuse_layers(body: Any) -> Callable[[], None] | None:
    """Put fused layers in the place of a body's own.

    Args:
        body: A transformers model without its head.
    Returns:
        A function that puts its own back, or None where they are of a kind that is not known, a repository's own code
        among them. A known kind may still compute something else, by its configuration: compare what comes out.
    """
    kind = _KINDS.get(body.config.model_type)
    if kind is None or getattr(body.config, "is_decoder", False):
        return None
    place, read = kind
    encoder = getattr(body, place)
    if not all(type(module).__module__.startswith(("transformers.", "torch.")) for module in encoder.modules()):
        return None
    setattr(body, place, FusedLayers([read(layer) for layer in encoder.layer]))
    return lambda: setattr(body, place, encoder)


def use_norm_kernel(body: Any) -> Callable[[], None] | None:
    """Have the fused layers of a body add and normalise by one Triton kernel.

    Returns:
        A function that undoes it, or None where there are no such layers.
    Raises:
        Exception: The kernel does not compile here, or not to what torch gives: nothing has been changed then.
    """
    layers = [module for module in body.modules() if isinstance(module, FusedLayer)]
    if not layers:
        return None
    from splade_integrations.engine.kernels.added_norm import AddedNormKernel, check_kernel  # brings Triton

    check_kernel(cast(nn.LayerNorm, layers[0].output_norm.norm))
    own = [(layer, name, getattr(layer, name)) for layer in layers for name in ("attention_norm", "output_norm")]
    for layer, name, added_norm in own:
        setattr(layer, name, AddedNormKernel(added_norm.norm))

    def undo() -> None:
        for layer, name, added_norm in own:
            setattr(layer, name, added_norm)

    return undo


def _is_gelu(activation: nn.Module) -> bool:
    from transformers.activations import GELUActivation  # brings Triton, a second that `import` should not take

    return isinstance(activation, GELUActivation) and activation.act is gelu


def _joined(linears: tuple[nn.Linear, ...]) -> nn.Linear:
    """One linear layer whose outputs are those of several, one after the other."""
    first = linears[0]
    joined = nn.Linear(first.in_features, sum(linear.out_features for linear in linears), device="meta")
    joined.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
    joined.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
    return joined
