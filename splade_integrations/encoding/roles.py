"""Loads a model's document encoder and its query encoder, each on its first use.

If both encoders use the same transformer, it is loaded only once. The encoder of inference-free queries looks up term
weights in a table, and runs no transformer. So in most cases, this encoder is loaded without torch and transformers.
`pipeline.py` handles prompts and pruning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from splade_integrations.dependencies import require_torch
from splade_integrations.encoding.lookup import LexicalRows, RowModel, load_token_weights
from splade_integrations.encoding.tokenizer import TextTokenizer, load_tokenizer, resolve_max_length
from splade_integrations.encoding.tokenizer_file import read_tokenizer_file
from splade_integrations.errors import UnsupportedModelError
from splade_integrations.forks import ForkSafeLock, this_thread
from splade_integrations.models.config import check_config
from splade_integrations.models.layouts import stated_positions
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import ModelSpec, RoleSpec, TransformerSpec

if TYPE_CHECKING:
    from splade_integrations.engine.compute import Compute  # loads torch
    from splade_integrations.engine.model import MaskedLM

__all__ = ["BatchLimits", "Role", "RoleEncoder", "RoleEncoders"]

Role = Literal["document", "query"]
# The number of texts in a block, for each type of device. The texts of a block are tokenised together, and then sorted
# by length and encoded in batches. The number is large enough to form batches of texts of similar length, and small
# enough to need little memory.
_BLOCK_ROWS = {"cpu": 512, "cuda": 2048, "mps": 512}


@dataclass(frozen=True)
class RoleEncoder:
    """The encoder of one role, which is either documents or queries.

    Args:
        tokenizer: A tokenizer of transformers, or a `FileTokenizer` (see `tokenizer_file.py`).
        tokenize: Turns texts into token ids.
        max_length: The largest number of tokens of a text.
        rows: The model that turns token ids into rows of term weights.
        block_rows: The number of texts in a block. The texts of a block are tokenised and encoded together.
        special_ids: The ids of the tokens that count as special in `special_terms`. None means all special tokens of
            the tokenizer.
    """

    tokenizer: Any
    tokenize: TextTokenizer
    max_length: int
    rows: RowModel
    block_rows: int
    special_ids: Sequence[int] | None = None

    @property
    def dim(self) -> int:
        """Vocabulary size."""
        return self.rows.dim

    @cached_property
    def special_terms(self) -> NDArray[np.bool_]:
        """Whether each term of the vocabulary is a special token. (dim,)."""
        special = np.zeros(self.dim, bool)
        ids = self.tokenizer.all_special_ids if self.special_ids is None else self.special_ids
        special[[token_id for token_id in ids if token_id < self.dim]] = True
        return special


@dataclass(frozen=True)
class BatchLimits:
    """Limits on the size of a batch. None means the model's default.

    Args:
        tokens: The largest number of tokens in a batch, padding included.
        texts: The largest number of texts in a batch.
    """

    tokens: int | None = None
    texts: int | None = None


class RoleEncoders(dict[Role, RoleEncoder]):
    """A model's document encoder and query encoder, by role. Each encoder is loaded when it is first looked up.

    Args:
        model_name: The name under which the model was requested, for error messages.
        spec: The spec of the model.
        compute: Returns the device and the settings with which the model computes. This function is called only when a
            transformer is loaded.
        max_length: The largest number of tokens of a text, or None for the model's own limit.
        limits: The limits on the size of a batch.
    """

    def __init__(
        self,
        model_name: str,
        spec: ModelSpec,
        compute: "Callable[[], Compute]",
        *,
        max_length: int | None,
        limits: BatchLimits,
    ) -> None:
        super().__init__()
        self._model_name = model_name
        self._spec = spec
        self._compute = compute
        self._max_length = max_length
        self._limits = limits
        self._loading = ForkSafeLock()
        self._tokenizers: dict[tuple[str, str], Any] = {}
        self._light_tokenizers: dict[tuple[str, str, Role], Any] = {}
        self._transformers: list[tuple[TransformerSpec, RoleEncoder]] = []

    def __missing__(self, role: Role) -> RoleEncoder:
        """Load the encoder of a role. Meanwhile, other threads can use the other role's encoder if it is loaded.

        Raises:
            UnsupportedModelError: The encoder cannot be loaded, or the vocabularies of the two roles differ.
        """
        with self._loading, this_thread.no_fork:
            if role not in self:
                loaded = self._load(role)
                for other in self.values():
                    _check_one_vocabulary(self._model_name, loaded, other)
                self[role] = loaded
            return self[role]

    def max_length(self) -> int:
        """Return the largest number of tokens of a document, special tokens included. No transformer is loaded.

        Raises:
            ValueError: The requested length exceeds the model's number of positions.
        """
        spec = self._spec.document.transformer
        if spec is None or "document" in self:
            return self["document"].max_length
        config = check_config(spec.repository, spec.folder)
        # If queries have read the same files, reading them again would take 20 ms and 8 MiB.
        of_queries = self._light_tokenizers.get((spec.repository.name, spec.folder, "query"))
        tokenizer = of_queries or self._light_tokenizer(spec.repository, spec.folder, "document")
        return resolve_max_length(self._max_length, spec.max_length, stated_positions(config), tokenizer)

    def full_tokenizer(self) -> Any:
        """Return transformers' tokenizer for documents or, if queries are inference-free, for queries.

        Raises:
            OptionalDependencyError: transformers is not installed.
        """
        spec = self._spec.query if self._spec.query.transformer is None else self._spec.document
        source = spec.transformer or spec.token_weights
        assert source is not None  # describe() gives each role a transformer or token weights
        return self._tokenizer(source.repository, source.folder)

    def _tokenizer(self, repository: Repository, folder: str) -> Any:
        place = (repository.name, folder)
        if place not in self._tokenizers:
            with require_torch(self._model_name, "its tokenizer"):
                self._tokenizers[place] = load_tokenizer(repository, folder)
        return self._tokenizers[place]

    def _light_tokenizer(self, repository: Repository, folder: str, role: Role) -> Any:
        """Return a tokenizer, without transformers if possible.

        If transformers' tokenizer is already loaded, it is returned. If not, the result is a `FileTokenizer`. If
        `read_tokenizer_file` cannot make one, transformers' tokenizer is loaded and returned. Each role gets a
        `FileTokenizer` of its own, because `TextTokenizer` sets the role's length in it.
        """
        place = (repository.name, folder, role)
        if place not in self._light_tokenizers:
            known = self._tokenizers.get(place[:2]) or read_tokenizer_file(repository, folder)
            self._light_tokenizers[place] = known or self._tokenizer(repository, folder)
        return self._light_tokenizers[place]

    def _load(self, role: Role) -> RoleEncoder:
        spec: RoleSpec = getattr(self._spec, role)
        transformer = None if spec.transformer is None else self._transformer(spec.transformer, role)
        if spec.token_weights is None:
            assert transformer is not None  # describe() gives each role a transformer or token weights
            return transformer
        tokenizer = self._light_tokenizer(spec.token_weights.repository, spec.token_weights.folder, role)
        dropped = tokenizer.all_special_ids if self._spec.special_terms == "drop" else ()
        lookup = load_token_weights(spec.token_weights, tokenizer, dropped)
        if transformer is not None:
            rows = LexicalRows(transformer.rows, lookup)
            return replace(transformer, rows=rows)
        max_length = self._max_length or min(tokenizer.model_max_length, 10**6)
        tokenize = TextTokenizer(
            tokenizer, max_length, add_special_tokens=False, lower_case=spec.token_weights.lower_case
        )
        return RoleEncoder(tokenizer, tokenize, max_length, lookup, _BLOCK_ROWS["cpu"])

    def _transformer(self, spec: TransformerSpec, role: Role) -> RoleEncoder:
        """Return the encoder that runs a transformer. Both roles share it if they use the same transformer."""
        for known, loaded in self._transformers:
            if known == spec:
                return loaded
        texts = {"document": "documents", "query": "queries"}[role]
        with require_torch(self._model_name, f"the transformer that encodes {texts}"):
            model = self._model(spec)
        tokenizer = self._light_tokenizer(spec.repository, spec.folder, role)
        _check_embeddings(spec.repository.name, tokenizer, model.embedded_tokens)
        max_length = resolve_max_length(self._max_length, spec.max_length, model.positions, tokenizer)
        tokenize = TextTokenizer(tokenizer, max_length, lower_case=spec.lower_case)
        rows = self._compute().run(partial(self._rows, spec, model, tokenizer))
        special_ids = None
        if spec.head == "token weights":  # like FlagEmbedding, which drops the terms of only these four special tokens
            names = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
            special_ids = [found for name in names if (found := getattr(tokenizer, name, None)) is not None]
        block_rows = _BLOCK_ROWS[self._compute().device.type]
        loaded = RoleEncoder(tokenizer, tokenize, max_length, rows, block_rows, special_ids)
        self._transformers.append((spec, loaded))
        return loaded

    def _model(self, spec: TransformerSpec) -> "MaskedLM":
        from splade_integrations.engine.load import load_language_model, load_masked_lm
        from splade_integrations.engine.token_weights import load_token_weigher

        compute = self._compute()
        if spec.head == "token weights":
            return load_token_weigher(spec.repository, spec.folder, compute)
        if spec.head == "language model":
            assert spec.attention is not None  # describe() gives each language model its attention
            return load_language_model(spec.repository, spec.folder, compute, spec.attention)
        return load_masked_lm(spec.repository, spec.folder, compute)

    def _rows(self, spec: TransformerSpec, model: "MaskedLM", tokenizer: Any) -> RowModel:
        from splade_integrations.engine.model import SpladeModel
        from splade_integrations.engine.token_weights import TokenWeightModel

        compute = self._compute()
        options: dict[str, Any] = {
            "padding_id": tokenizer.pad_token_id or 0,
            "max_batch_tokens": self._limits.tokens,
            "max_batch_texts": self._limits.texts,
            "num_threads": compute.num_threads,
            "runs_apart": not compute.by_openvino,  # OpenVINO computes one batch at a time, with all threads
        }
        if spec.head == "token weights":
            return TokenWeightModel(model, **options)
        return SpladeModel(
            model,
            pooling_strategy=spec.pooling_strategy,
            activation_function=spec.activation_function,
            **options,
        )


def _check_one_vocabulary(model_name: str, encoder: RoleEncoder, other: RoleEncoder) -> None:
    same = encoder.dim == other.dim and (
        encoder.tokenizer is other.tokenizer or encoder.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    )
    if not same:
        raise UnsupportedModelError(
            f"{model_name!r} must have one vocabulary for documents and queries, got two vocabularies, of "
            f"{other.dim} and {encoder.dim} terms. Use a SPLADE model whose files belong together."
        )


def _check_embeddings(name: str, tokenizer: Any, embedded_tokens: int) -> None:
    """Raise UnsupportedModelError if the tokenizer makes an id for which the model has no embedding."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= embedded_tokens:
        raise UnsupportedModelError(
            f"{name!r} must have an embedding for each token, got {embedded_tokens} embeddings and a tokenizer that "
            f"makes the id {largest} ({token!r}). Use the tokenizer that the model was trained with."
        )
