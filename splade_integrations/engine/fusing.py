"""Makes fused layers from transformers' layers, and puts a faster layer norm into fused layers."""

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from splade_integrations.engine.layers import FusedLayer, FusedLayers

__all__ = ["fuse_layers", "use_norm_kernel"]


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
