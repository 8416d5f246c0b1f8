"""What is in this model repository? Loads a masked-LM checkpoint, or says why it has no SPLADE weights.

Knows transformers and where models lie, nothing of texts or batches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from splade_integrations.errors import UnsupportedModelError

__all__ = ["MaskedLanguageModel", "load_masked_lm", "resolve_max_length"]

# Tokenizers without a stated limit say 1e30.
_NO_LIMIT = 10**6


@dataclass(frozen=True)
class MaskedLanguageModel:
    """A masked-LM checkpoint, taken apart at its decoder where its head ends in one.

    Args:
        model: The transformers model. Where `weight` is given its decoder is the identity, so that its output is what
            enters the decoder, (B, L, H); otherwise its output are the logits, (B, L, V).
        weight: Decoder weight, (V, H), or None for a head that is more than a linear decoder at its end.
        bias: Decoder bias, (V,), or None.
        dim: Vocabulary size V: the decoder's rows, which the tokenizer's length can differ from.
        tokenizer: The checkpoint's tokenizer.
        config: The checkpoint's transformers configuration.
    """

    model: Any
    weight: Tensor | None
    bias: Tensor | None
    dim: int
    tokenizer: Any
    config: Any


def load_masked_lm(name: str, *, device: torch.device, dtype: torch.dtype, **hub_options: Any) -> MaskedLanguageModel:
    """Load a masked-LM checkpoint from a folder or a hub repository.

    Args:
        name: A local folder, or `org/model` on the hub.
        device: Where the weights go.
        dtype: Type of the weights.
        **hub_options: `revision`, `cache_dir`, `token`, `local_files_only`: as in transformers.
    Raises:
        FileNotFoundError: Neither a folder nor a repository that can be reached.
        UnsupportedModelError: No masked-LM head, or weights that are missing or not finite.
    """
    config = _load_config(name, hub_options)
    with _quiet_if_local(name):
        try:
            model, report = AutoModelForMaskedLM.from_pretrained(
                name, config=config, dtype=dtype, output_loading_info=True, **hub_options
            )
            tokenizer = AutoTokenizer.from_pretrained(name, **hub_options)
        except OSError as err:
            raise FileNotFoundError(f"{name!r} lacks a file: {err} Complete the folder, or name another one.") from err
    random = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if random:
        more = f" and {len(random) - 3} more" if len(random) > 3 else ""
        raise UnsupportedModelError(
            f"{name!r} lacks the weights {', '.join(random[:3])}{more}: they would be random. "
            "Use a complete …ForMaskedLM checkpoint."
        )
    broken = [key for key, value in model.named_parameters() if not value.isfinite().all()]
    if broken:
        raise UnsupportedModelError(f"{name!r} has NaN or infinite weights in {broken[0]}. Fetch the checkpoint again.")
    model.eval().requires_grad_(False).to(device)
    decoder = _take_decoder(model)
    return MaskedLanguageModel(
        model=model,
        weight=None if decoder is None else decoder.weight.detach(),
        bias=None if decoder is None or decoder.bias is None else decoder.bias.detach(),
        dim=config.vocab_size if decoder is None else decoder.weight.shape[0],
        tokenizer=tokenizer,
        config=config,
    )


def resolve_max_length(requested: int | None, model: MaskedLanguageModel) -> int:
    """The most token ids of a text, special tokens included: what is asked for, or the most that the model takes.

    Raises:
        ValueError: More than the model has positions for, or no room for a token beside the special ones.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and "roberta" in model.config.model_type:
        positions -= model.config.pad_token_id + 1  # RoBERTa counts positions from its padding id
    limits = [limit for limit in (positions, model.tokenizer.model_max_length) if limit and limit < _NO_LIMIT]
    if requested is None:
        return min(limits, default=512)
    least = model.tokenizer.num_special_tokens_to_add() + 1
    if not isinstance(requested, int) or requested < least:
        raise ValueError(
            f"max_length must be an int of at least {least}, got {requested!r}. Use None for the model's own."
        )
    if positions is not None and requested > positions:
        raise ValueError(
            f"max_length must be at most {positions}, the positions that the model has, got {requested}. "
            "Use None for the model's own limit."
        )
    return requested


def _load_config(name: str, hub_options: dict[str, Any]) -> Any:
    """The checkpoint's configuration, once it is known to state a masked-LM head."""
    try:
        config = AutoConfig.from_pretrained(name, **hub_options)
    except (OSError, ValueError) as err:
        if (Path(name) / "config.json").is_file():
            raise UnsupportedModelError(
                f"{name!r} has a config.json that transformers cannot read: {err} Use a …ForMaskedLM checkpoint."
            ) from err
        if Path(name).is_dir():
            raise FileNotFoundError(
                f"{name!r} must be a model folder, but it has no config.json. Name the folder that holds it."
            ) from err
        raise FileNotFoundError(
            f"{name!r} must be a folder, or a model repository that can be reached, and is neither. "
            f"Check the name, the network and, for a gated model, the token. ({_first_line(err)})"
        ) from err
    architectures = config.architectures or []
    if not any(architecture.endswith("ForMaskedLM") for architecture in architectures):
        found = architectures[0] if architectures else f"{config.model_type} model of no stated architecture"
        raise UnsupportedModelError(
            f"{name!r} is a {found} without a masked-LM head, so it has no SPLADE weights. "
            "Use a …ForMaskedLM checkpoint."
        )
    return config


def _take_decoder(model: Any) -> nn.Linear | None:
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
    vocabulary = decoder.weight.shape[0]
    ids = torch.arange(16, device=decoder.weight.device).reshape(2, 8) * (vocabulary // 17)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits
        setattr(owner, child, nn.Identity())
        try:
            entering = model(input_ids=ids, attention_mask=mask).logits
            same = torch.allclose(linear(entering, decoder.weight, decoder.bias), expected, rtol=1e-3, atol=1e-3)
        except (AttributeError, RuntimeError):  # the head reads the decoder's weights, or the shapes do not fit
            same = False
    if not same:
        setattr(owner, child, decoder)
        return None
    return decoder


@contextmanager
def _quiet_if_local(name: str) -> Iterator[None]:
    """No progress bar for reading weights from a local folder; a download keeps its own."""
    if not Path(name).is_dir() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()


def _first_line(err: Exception) -> str:
    return str(err).strip().split("\n", 1)[0]
