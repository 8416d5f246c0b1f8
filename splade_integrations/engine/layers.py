"""Computes the layers of BERT, RoBERTa, DistilBERT and similar models in few calls, with weights laid out for the CPU.

In the transformers library, a layer is a tree of about twenty modules. Calling these modules takes a fifth of the time
of encoding a short query. Here, a layer is one function. It computes the projections to queries, keys and values in one
matrix product, and changes large tensors in place instead of copying them.

All parts of a layer except attention treat each token alone. So on a CPU, these parts can do without the tokens that
only pad a batch (see `TokenRows`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, pad, scaled_dot_product_attention

__all__ = [
    "FusedLayer",
    "FusedLayers",
    "InPlaceGelu",
    "PackedLinear",
    "TokenRows",
    "encoder_output",
    "has_fused_layers",
    "pad_rows",
    "rounded_up",
    "seen_tokens",
]

# Padding is left out if it makes up at least this share of the batch. Leaving it out means that each layer moves the
# tokens to their places and back, which takes about as long as computing this share of them. The narrower a model is,
# the longer moving takes in comparison. (Measured with one thread at hidden sizes 128 and 768.)
_MUCH_PADDING = 1 / 16
_MUCH_PADDING_IF_NARROW = 1 / 6
_NARROW = 256


def rounded_up(rows: int) -> int:
    """Round a number of rows up to one of a few fixed numbers. The result is at most a sixteenth above `rows`.

    oneDNN compiles a kernel for each number of rows, and keeps the kernel in memory. Compiling a kernel takes half a
    millisecond, and keeping it takes half a megabyte. Without rounding, batches of real texts would need hundreds of
    kernels.

    Example:
        >>> [rounded_up(rows) for rows in (25, 33, 1000, 6100)]
        [25, 34, 1024, 6144]
    """
    step = 1 << max(0, rows.bit_length() - 5)  # there are sixteen steps from each power of two to the next
    return -(-rows // step) * step


def pad_rows(tokens: Tensor, rows: int) -> Tensor:
    """Append zeros to `tokens`, (…, n, W), until it has `rows` rows. Return `tokens` itself if no rows are missing."""
    missing = rows - tokens.shape[-2]
    return pad(tokens, (0, 0, 0, missing)) if missing else tokens  # pad() copies even if there is nothing to add


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


@dataclass(frozen=True)
class TokenRows:
    """The tokens of a batch of B texts, padded to L tokens, as the rows of a matrix.

    On a CPU, the matrix leaves out padding if there is much of it, and ends in a few rows of zeros (see `rounded_up`).

    Args:
        batch: The number of texts, B.
        length: The number of tokens of each text, padding included, L.
        rows: The number of rows, R.
        places: For each row, except the rows of zeros at the end, the position of its token in the flattened batch.
            (n,). None means that each token has a row, padding included.
        row_of: The row of each token of the flattened batch, (B · L,), or None as for `places`. Padding has the row of
            the token before it. Texts must be padded at the end, so this is a token of the same text.

    Example:
        >>> mask = torch.tensor([[True, True, False], [True, False, False]])
        >>> hidden = torch.arange(6.0).view(2, 3, 1).expand(2, 3, 64)
        >>> tokens = TokenRows.of(hidden, mask[:, None, None, :])
        >>> rows = tokens.taken_from(hidden)
        >>> rows[:, 0]
        tensor([0., 1., 3.])
        >>> tokens.put_back(rows)[:, :, 0]
        tensor([[0., 1., 1.],
                [3., 3., 3.]])
    """

    batch: int
    length: int
    rows: int
    places: Tensor | None = None
    row_of: Tensor | None = None

    @classmethod
    def of(cls, hidden: Tensor, mask: Tensor | None = None) -> "TokenRows":
        """Lay out a batch.

        Args:
            hidden: The hidden states before the first layer. (B, L, H).
            mask: The attention mask, as in `seen_tokens`. None means that there is no padding.
        """
        batch, length, width = hidden.shape
        cells = batch * length
        if hidden.device.type != "cpu":  # counting the real tokens would make the host wait for the GPU
            return cls(batch, length, cells)
        if mask is not None:
            flat = seen_tokens(mask).expand(batch, length).flatten()
            places = flat.nonzero().squeeze(1)
            padding = cells - len(places)
            much = _MUCH_PADDING_IF_NARROW if width < _NARROW else _MUCH_PADDING
            if len(places) and padding >= much * cells:
                row_of = (flat.cumsum(0) - 1).clamp_min_(0)
                return cls(batch, length, rounded_up(len(places)), places, row_of)
        return cls(batch, length, rounded_up(cells))

    def taken_from(self, texts: Tensor) -> Tensor:
        """Return the rows, (R, W), of the tokens of all texts, (B, L, W)."""
        flat = texts.flatten(0, 1)
        return pad_rows(flat if self.places is None else flat.index_select(0, self.places), self.rows)

    def put_back(self, rows: Tensor) -> Tensor:
        """Return the texts, (B, L, W), of rows, (R, W). Padding that has no row gets a copy of the row before it."""
        flat = rows[: self.batch * self.length] if self.row_of is None else rows.index_select(0, self.row_of)
        return flat.view(self.batch, self.length, -1)


def seen_tokens(mask: Tensor) -> Tensor:
    """Return which tokens an attention mask does not hide.

    Args:
        mask: (B, 1, L, L) or (B, 1, 1, L), of bool or of numbers. Large negative numbers hide tokens. B may be 1, if
            the mask is the same for all texts.
    Returns:
        (B, L) bool.
    """
    rows = mask[:, 0, 0]
    return rows if rows.dtype == torch.bool else rows >= 0


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
            hidden: The hidden states as rows, laid out by `tokens`. (R, H).
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


def has_fused_layers(backbone: nn.Module) -> bool:
    """Return whether the layers of a model without its head are fused."""
    return any(isinstance(part, FusedLayers) for part in backbone.children())


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
