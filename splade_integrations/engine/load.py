"""Loads a masked-LM checkpoint safely, or says why it has no SPLADE weights.

Knows transformers and torch, nothing of texts, batches or pooling.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from splade_integrations.engine.compute import Backend
from splade_integrations.engine.memory import keep_freed_memory
from splade_integrations.engine.optimize import rebuild
from splade_integrations.errors import UnsupportedModelError, first_line
from splade_integrations.models.repository import Repository
from splade_integrations.sparse import is_integer

__all__ = ["LoadedMaskedLM", "load_masked_lm", "load_tokenizer", "resolve_max_length"]

logger = logging.getLogger(__name__)

# Tokenizers without a stated limit say 1e30.
_NO_LIMIT = 10**6
# More bring the mean hardly nearer to that of real texts.
_USUAL_TOKENS = 64


@dataclass(frozen=True)
class LoadedMaskedLM:
    """A masked-LM checkpoint, taken apart at its decoder where its head ends in one.

    Args:
        model: The transformers model. Where `weight` is given its decoder is the identity, so that its output is what
            enters the decoder, (B, L, H); otherwise its output are the logits, (B, L, V).
        weight: Decoder weight, (V, H), or None for a head that is more than a linear decoder at its end.
        bias: Decoder bias, (V,), or None.
        dim: Vocabulary size V: the decoder's rows, which the tokenizer's length can differ from.
        tokenizer: The checkpoint's tokenizer.
        positions: The most tokens that it has positions for, or None where there is no limit.
        ignores_padding: Whether a padded text gives what it gives alone. Models that mix tokens by convolution or by a
            Fourier transform do not.
    """

    model: Any
    weight: Tensor | None
    bias: Tensor | None
    dim: int
    tokenizer: Any
    positions: int | None
    ignores_padding: bool

    def usual_hidden_state(self) -> Tensor:
        """About the mean of what enters the decoder: that of one text, whose tokens are spread over the vocabulary.

        Only where `weight` is given.

        Returns:
            (H,) float32; zeros where it is not finite.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]
        tokens = min(_USUAL_TOKENS, self.positions or _USUAL_TOKENS)
        ids = torch.arange(tokens, device=self.model.device).unsqueeze(0) * (rows - 1) // tokens
        hidden = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True).logits  # (1, L, H)
        mean: Tensor = hidden[0].float().mean(dim=0)
        return mean if mean.isfinite().all() else torch.zeros_like(mean)


def load_masked_lm(
    repository: Repository,
    folder: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend = "torch",
    trust_remote_code: bool = False,
) -> LoadedMaskedLM:
    """Load a masked-LM checkpoint.

    Weights are read from safetensors, or from a `.bin` file by torch's weights-only loader, which runs no code.

    Args:
        repository: Where its files lie.
        folder: Folder within the repository; "" is its root.
        device: Where the weights go.
        dtype: Type of the weights. int8 is for the body's linear layers; the rest is float32 then.
        backend: What computes the body's layers. "openvino" leaves the rest in float32, whatever the type.
        trust_remote_code: Let the repository run code of its own; its revision is logged.
    Raises:
        FileNotFoundError: A file is missing.
        UnsupportedModelError: No masked-LM head, weights that are missing, contradict the configuration, are damaged
            or not finite, or layers that the backend does not know.
    """
    name = repository.name
    arguments = {**_location(repository, folder), "trust_remote_code": trust_remote_code}
    config = _load_config(name, arguments)
    if trust_remote_code:
        logger.warning("%s may run code of its own, at revision %s.", name, getattr(config, "_commit_hash", None))
    with _quiet_if_local(repository):
        try:
            model, report = AutoModelForMaskedLM.from_pretrained(
                config=config,
                dtype=torch.float32 if dtype == torch.int8 or backend == "openvino" else dtype,
                output_loading_info=True,
                **arguments,
            )
        except SafetensorError as err:
            raise UnsupportedModelError(f"{name!r} has a damaged weights file: {err}. Fetch it again.") from err
        except OSError as err:
            raise FileNotFoundError(f"{name!r} lacks a file: {err} Complete it, or name another model.") from err
        # Sizes that differ, a pickle cut short, or one that is more than tensors.
        except (RuntimeError, ValueError, EOFError, UnpicklingError) as err:
            raise UnsupportedModelError(
                f"{name!r} has weights that cannot be loaded: {first_line(err)} Fetch it again, or "
                "use a complete …ForMaskedLM checkpoint."
            ) from err
    _check_weights(name, model, report)
    model.eval().requires_grad_(False).to(device)
    if device.type == "cpu":
        keep_freed_memory()
    tokenizer = load_tokenizer(repository, folder, trust_remote_code=trust_remote_code)
    _check_vocabulary(name, model, tokenizer)
    decoder, ignores_padding = rebuild(name, model, dtype, backend)
    return LoadedMaskedLM(
        model=model,
        weight=None if decoder is None else decoder.weight.detach(),
        bias=None if decoder is None or decoder.bias is None else decoder.bias.detach(),
        dim=config.vocab_size if decoder is None else decoder.weight.shape[0],
        tokenizer=tokenizer,
        positions=_positions(model),
        ignores_padding=ignores_padding,
    )


def load_tokenizer(repository: Repository, folder: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a repository's folder.

    Raises:
        FileNotFoundError: There is none.
    """
    try:
        return AutoTokenizer.from_pretrained(**_location(repository, folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as err:
        raise FileNotFoundError(
            f"{repository.name!r} has no tokenizer that loads: {first_line(err)} Complete it."
        ) from err


def resolve_max_length(requested: int | None, stated: int | None, positions: int | None, tokenizer: Any) -> int:
    """The most token ids of a text, special tokens included: what is asked for, or the most that the model takes.

    Args:
        requested: The user's wish, or None.
        stated: What the repository states beside the transformer, or None.
        positions: What the model has positions for, or None.
        tokenizer: The tokenizer.
    Raises:
        ValueError: More than the model has positions for, or no room for a token beside the special ones.
    """
    if requested is None:
        limits = [stated or tokenizer.model_max_length, positions]
        return min((limit for limit in limits if limit and limit < _NO_LIMIT), default=512)
    least = tokenizer.num_special_tokens_to_add() + 1
    if not is_integer(requested) or requested < least:
        raise ValueError(
            f"max_length must be an int of at least {least}, got {requested!r}. Use None for the model's own."
        )
    if positions is not None and requested > positions:
        raise ValueError(
            f"max_length must be at most {positions}, the positions that the model has, got {requested}. "
            "Use None for the model's own limit."
        )
    return int(requested)


def _location(repository: Repository, folder: str) -> dict[str, Any]:
    """How transformers is told of a folder of a repository."""
    if repository.local_folder is not None:
        return {"pretrained_model_name_or_path": str(repository.local_folder / folder), **repository.hub_options}
    return {"pretrained_model_name_or_path": repository.name, "subfolder": folder, **repository.hub_options}


def _load_config(name: str, arguments: dict[str, Any]) -> Any:
    """The checkpoint's configuration, once it is known to state a masked-LM head."""
    try:
        config = AutoConfig.from_pretrained(**arguments)
    except (OSError, ValueError, KeyError) as err:
        if "trust_remote_code" in str(err):
            raise UnsupportedModelError(
                f"{name!r} comes with code of its own, which is not run unasked. Read it, then pass "
                "trust_remote_code=True, and revision=… so that it stays what you have read."
            ) from err
        raise UnsupportedModelError(
            f"{name!r} has a config.json that transformers cannot read: {first_line(err)} "
            "Use a …ForMaskedLM checkpoint."
        ) from err
    architectures = config.architectures or []
    if not any(architecture.endswith("ForMaskedLM") for architecture in architectures):
        found = architectures[0] if architectures else f"{config.model_type} model of no stated architecture"
        raise UnsupportedModelError(
            f"{name!r} is a {found} without a masked-LM head, so it has no SPLADE weights. "
            "Use a …ForMaskedLM checkpoint."
        )
    return config


def _check_weights(name: str, model: Any, report: dict[str, Any]) -> None:
    random = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if random:
        more = f" and {len(random) - 3} more" if len(random) > 3 else ""
        raise UnsupportedModelError(
            f"{name!r} lacks the weights {', '.join(random[:3])}{more}: they would be random. "
            "Use a complete …ForMaskedLM checkpoint."
        )
    for key, value in model.named_parameters():
        if value.numel() and not all(extreme.isfinite() for extreme in value.detach().aminmax()):  # one pass
            raise UnsupportedModelError(f"{name!r} has NaN or infinite weights in {key}. Fetch the checkpoint again.")


def _check_vocabulary(name: str, model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that makes ids which the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= rows:
        raise UnsupportedModelError(
            f"{name!r} has a tokenizer that makes the id {largest} ({token!r}), but embeddings for {rows} tokens only. "
            "Use the tokenizer that it was trained with."
        )


def _positions(model: Any) -> int | None:
    """The most tokens that a model has positions for. RoBERTa and its kin count them from their padding id."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    for path, module in model.named_modules():
        padding_id = getattr(module, "padding_idx", None)
        if positions is not None and path.endswith("position_embeddings") and padding_id is not None:
            return positions - int(padding_id) - 1
    return positions


@contextmanager
def _quiet_if_local(repository: Repository) -> Iterator[None]:
    """No progress bar for reading weights from a local folder; a download keeps its own."""
    if repository.local_folder is None or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
