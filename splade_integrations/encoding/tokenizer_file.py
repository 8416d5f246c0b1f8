"""Makes a tokenizer from `tokenizer.json` without transformers, if transformers would make the same tokenizer.

Importing transformers takes a second. With this tokenizer, inference-free queries, whose weights come from a table,
need neither transformers nor torch, and a BERT model needs only torch (see engine/bert.py). But transformers also reads
`tokenizer_config.json`, which can contradict `tokenizer.json`. If transformers might make a different tokenizer,
`read_tokenizer_file` returns None. The caller then loads the tokenizer with transformers.
"""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

from splade_integrations.errors import catchable_panics
from splade_integrations.models.repository import Repository, path_in

__all__ = ["FileTokenizer", "changed_normalization", "read_tokenizer_file"]

# transformers' class names for the two kinds of tokenizers that this module reads. `PreTrainedTokenizerFast` uses
# tokenizer.json unchanged. `BertTokenizer` reads only the vocabulary from this file, and sets everything else itself.
_GENERIC = {"PreTrainedTokenizerFast", "TokenizersBackend"}
_BERT = {"BertTokenizer", "DistilBertTokenizer"}
_BERT_MODELS = {"bert", "distilbert"}
_BERT_NAMES = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
}  # fmt: skip
_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# If tokenizer_config.json states one of these, transformers runs code, reads another file or adds special tokens.
_OTHER_TOKENIZER = ("auto_map", "fast_tokenizer_files", "model_specific_special_tokens")
# If tokenizer_config.json has one of these keys, even with the value false, transformers replaces the tokens that are
# put around a text.
_OTHER_ENDS = ("add_bos_token", "add_eos_token")
_PROBE = "Élan"  # shows whether a normalizer changes capital letters or accents
_UNKNOWN_LENGTH = int(1e30)  # the model_max_length that transformers reports if a repository states none


class FileTokenizer:
    """A tokenizer of the library `tokenizers`, with the attributes of transformers' tokenizers that the encoder uses.

    Args:
        backend: The tokenizer of the library `tokenizers`.
        model_max_length: The largest number of tokens of a text, as stated in the repository.
        truncation_side: The end at which long texts are cut: "right" or "left".
        named: {name: token} of the special tokens that have names, such as `sep_token`.
        extra: The special tokens that have no names.
    """

    is_fast = True

    def __init__(
        self, backend: Tokenizer, model_max_length: int, truncation_side: str, named: dict[str, str], extra: list[str]
    ) -> None:
        self.backend_tokenizer = backend
        self.model_max_length = model_max_length
        self.truncation_side = truncation_side
        self.unk_token = named.get("unk_token")
        ids = {name: backend.token_to_id(token) for name, token in named.items()}
        self.unk_token_id, self.cls_token_id, self.sep_token_id = map(ids.get, ("unk_token", "cls_token", "sep_token"))
        self.bos_token_id, self.eos_token_id, self.pad_token_id = map(ids.get, ("bos_token", "eos_token", "pad_token"))
        self.all_special_tokens = list(dict.fromkeys([*named.values(), *extra]))
        special = map(backend.token_to_id, self.all_special_tokens)
        self.all_special_ids: list[int] = [token_id for token_id in special if token_id is not None]

    def num_special_tokens_to_add(self) -> int:
        """Return the number of special tokens that are put around a text."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(False))

    def get_vocab(self) -> dict[str, int]:
        """Return {token: token id}."""
        return dict(self.backend_tokenizer.get_vocab())

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str | None]:
        """Return the token of each id, or None for an id that the vocabulary lacks."""
        return [self.backend_tokenizer.id_to_token(token_id) for token_id in ids]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text that the tokens stand for."""
        decoder = self.backend_tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(tokens))


def read_tokenizer_file(repository: Repository, folder: str) -> FileTokenizer | None:
    """Return the tokenizer in a folder of a repository, or None if transformers might make a different tokenizer.

    Args:
        repository: The repository.
        folder: The folder within the repository. "" is the repository's root.
    """
    path = repository.path(path_in(folder, "tokenizer.json"))
    stated = repository.json(path_in(folder, "tokenizer_config.json"))
    if (
        path is None
        or not isinstance(stated, dict)
        or any(stated.get(key) for key in _OTHER_TOKENIZER)
        or any(key in stated for key in _OTHER_ENDS)
    ):
        return None
    if repository.path(path_in(folder, "added_tokens.json")) is not None:
        return None
    kind = _kind(repository, folder, stated)
    if kind is None:
        return None
    try:
        with catchable_panics():
            backend = Tokenizer.from_file(str(path))
    except Exception:  # `tokenizers` raises plain Exception. The caller then uses transformers, which reports the error
        return None
    found = _special_tokens(repository, folder, stated, _BERT_NAMES if kind == "bert" else {})
    if found is None:
        return None
    named, extra = found
    if not _adds_nothing(backend, stated, [*named.values(), *extra]):
        return None
    if kind == "bert" and not _is_bert(backend, stated, named):
        return None
    truncation = backend.truncation or {}
    side = stated.get("truncation_side") or truncation.get("direction") or "right"
    length = stated.get("model_max_length", stated.get("max_len", _UNKNOWN_LENGTH))
    if side not in ("left", "right") or not isinstance(length, int | float) or not length > 0:
        return None
    return FileTokenizer(backend, int(length), side, named, extra)


def changed_normalization(repository: Repository, folder: str, tokenizer: Any) -> tuple[str, str, str] | None:
    """Normalize a text with tokenizer.json and with a tokenizer of transformers, and return the results if they differ.

    For some tokenizers, transformers 5 and later reads only the vocabulary from tokenizer.json. It makes their
    normalizer from the keys `do_lower_case` and `strip_accents` of tokenizer_config.json. If these keys are missing,
    the normalizer of a BERT tokenizer lowercases texts.

    Args:
        repository: The repository.
        folder: The folder within the repository. "" is the repository's root.
        tokenizer: The tokenizer that transformers made.
    Returns:
        The text, the result of tokenizer.json, and the result of `tokenizer`. None if both results are equal, or if
        they cannot be compared.
    """
    path = repository.path(path_in(folder, "tokenizer.json"))
    if path is None or not getattr(tokenizer, "is_fast", False):
        return None
    try:
        with catchable_panics():
            stated = Tokenizer.from_file(str(path)).normalizer
    except Exception:  # `tokenizers` raises plain Exception
        return None
    found = [
        _PROBE if normalizer is None else normalizer.normalize_str(_PROBE)
        for normalizer in (stated, tokenizer.backend_tokenizer.normalizer)
    ]
    return None if found[0] == found[1] else (_PROBE, found[0], found[1])


def _kind(repository: Repository, folder: str, stated: dict[str, Any]) -> str | None:
    """Return "file" if transformers uses tokenizer.json unchanged, "bert" if it makes a `BertTokenizer`, else None."""
    config = repository.json(path_in(folder, "config.json"))
    config = config if isinstance(config, dict) else {}
    name = stated.get("tokenizer_class") or config.get("tokenizer_class")
    model_type = config.get("model_type")
    if not isinstance(name, str | None) or not isinstance(model_type, str | None):
        return None
    if name is None:
        return "bert" if model_type in _BERT_MODELS else None
    if model_type not in {*_BERT_MODELS, None}:
        return None
    if name.removesuffix("Fast") in _BERT:
        return "bert"
    return "file" if name in _GENERIC else None


def _special_tokens(
    repository: Repository, folder: str, stated: dict[str, Any], defaults: dict[str, str]
) -> tuple[dict[str, str], list[str]] | None:
    """Return the special tokens that have names, as {name: token}, and a list of the special tokens without names.

    Return None if the files state special tokens in a way that this module does not know.
    """
    named: dict[str, Any] = {**defaults, **{name: stated[name] for name in _NAMES if name in stated}}
    if "added_tokens_decoder" not in stated:  # if this key is there, transformers ignores special_tokens_map.json
        kept = repository.json(path_in(folder, "special_tokens_map.json")) or {}
        if not isinstance(kept, dict) or kept.keys() - set(_NAMES):
            return None
        named |= kept
    if any(key.endswith("_token") and key not in _NAMES and not key.startswith("add_") for key in stated):
        return None
    extra = stated.get("extra_special_tokens") or stated.get("additional_special_tokens") or []
    if not isinstance(extra, list):
        return None
    contents = {name: _content(value) for name, value in named.items() if value is not None}
    further = [_content(value) for value in extra]
    if not all(isinstance(content, str) for content in [*contents.values(), *further]):
        return None
    return contents, further


def _content(token: Any) -> Any:
    """Return the text of a special token, which the files state as a string or as a JSON object."""
    return token.get("content") if isinstance(token, dict) else token


def _adds_nothing(backend: Tokenizer, stated: dict[str, Any], special: list[str]) -> bool:
    """Return whether tokenizer.json already has all tokens that transformers would add, with the same properties."""
    found = {
        token_id: {
            name: getattr(token, name)
            for name in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        }
        for token_id, token in backend.get_added_tokens_decoder().items()
    }
    decoder = stated.get("added_tokens_decoder")
    if decoder is not None and decoder != {str(token_id): token for token_id, token in found.items()}:
        return False
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return all({"content": token, **plain} in found.values() for token in special) and not stated.get(
        "split_special_tokens"
    )


def _is_bert(backend: Tokenizer, stated: dict[str, Any], named: dict[str, str]) -> bool:
    """Return whether tokenizer.json describes the tokenizer that transformers' `BertTokenizer` would make."""
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": stated.get("tokenize_chinese_chars", True),
        "strip_accents": stated.get("strip_accents"),
        "lowercase": stated.get("do_lower_case", True),
    }
    model = backend.model
    unknown = stated.get("unk_token", "[UNK]")
    ends = [named.get(name) for name in ("cls_token", "sep_token")]  # without a token if the files state null
    return (
        _state(backend.normalizer) == normalizer
        and _state(backend.pre_tokenizer) == {"type": "BertPreTokenizer"}
        and type(model).__name__ == "WordPiece"
        and model.continuing_subword_prefix == "##"
        and model.max_input_chars_per_word == 100
        and model.unk_token == (unknown.get("content") if isinstance(unknown, dict) else unknown)
        and _ids_of_empty_text(backend) == [end and backend.token_to_id(end) for end in ends]
    )


def _ids_of_empty_text(backend: Tokenizer) -> list[int] | None:
    try:
        with catchable_panics():
            return list(backend.encode("").ids)
    except Exception:  # `tokenizers` raises plain Exception. The caller then uses transformers, which reports the error
        return None


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
