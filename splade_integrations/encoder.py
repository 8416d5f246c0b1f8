"""`SpladeEncoder` turns texts into term weights. It connects the packages models/, engine/ and encoding/.

The steps are: texts -> token ids -> batches of texts -> hidden states -> logits (one part of the vocabulary at a time)
-> term weights of each batch -> csr_array. This module does not use Milvus, LangChain or LlamaIndex. `reference.py`
does the same computation in twenty lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from splade_integrations.dependencies import check_tokenizers, require_torch
from splade_integrations.encoding.pipeline import (
    TokenCount,
    count_tokens,
    encode,
    role_settings,
    stream_rows,
)
from splade_integrations.encoding.progress import ShowProgress
from splade_integrations.encoding.roles import BatchLimits, Role, RoleEncoders
from splade_integrations.encoding.texts import check_texts, iterate_texts
from splade_integrations.encoding.tokenizer import lowers_case, token_names
from splade_integrations.encoding.with_dense import encode_with_dense
from splade_integrations.models.fingerprint import Fingerprint, compute_fingerprint
from splade_integrations.models.layouts import describe
from splade_integrations.models.repository import Repository
from splade_integrations.models.spec import ActivationFunction, PoolingStrategy, SpecialTerms, override
from splade_integrations.options import LongDocuments, check_at_least_one, check_options
from splade_integrations.pruning import Pruning
from splade_integrations.sparse import as_rows, is_integer

if TYPE_CHECKING:  # these modules load torch, or are not needed for queries
    from splade_integrations.encoding.explain import Explanation
    from splade_integrations.engine.compute import Backend, Compute, Device, Dtype, ResolvedDevice, ResolvedDtype

__all__ = ["SpladeEncoder"]

# These values are valid on every machine. Any other value is checked when the encoder is made. This check imports
# torch.
_ALWAYS_VALID = {"device": ("auto", "cpu"), "dtype": ("auto", "float32"), "backend": ("torch",)}


class SpladeEncoder:
    """Encodes texts as SPLADE sparse embeddings: one weight per vocabulary term, and most weights are zero.

    One encoder serves any number of adapters and threads. A text's weights do not depend on the other texts of a call
    or on their order (within 1e-5 in float32). The model's repository states settings for prompts, pooling, activation,
    pruning and length. The encoder uses these settings, and options override them. `print(encoder)` shows the settings
    in use.

    Args:
        model_name: The local folder of a SPLADE model, or its name on the Hugging Face hub, `org/model`. The supported
            models are SPLADE models of sentence-transformers 5 and 6 (on masked LMs and on decoders), plain masked-LM
            checkpoints, OpenSearch's neural sparse models, and BGE-M3. With BGE-M3, a text's terms are only its own
            tokens.
        device: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "cuda:n" or "mps".
        dtype: "auto", "float32", "bfloat16", "float16" or "int8". "auto" is float32 on a CPU and on MPS, and float16
            on CUDA. "int8" quantises the linear layers, and needs a CPU with instructions for 8-bit integers.
            With OpenVINO, "bfloat16" needs a CPU with instructions for it. docs/speed.md says how each type affects
            quality.
        backend: "torch" or "openvino". OpenVINO computes the layers of BERT, RoBERTa, DistilBERT and similar models on
            a CPU, and is fastest in int8. OpenVINO needs this package's extra "openvino".
        max_length: The largest number of tokens of a text, special tokens included. Longer texts are cut, with one
            warning per call. None means the model's own limit.
        revision: The branch, tag or commit of a hub repository.
        long_documents: What happens to a document of more than `max_length` tokens. "truncate" cuts it. "max" reads it
            in windows of `max_length` tokens, and keeps each term's largest weight over the windows. Each window
            repeats the last eighth of the previous window.
        max_windows: The largest number of windows of a document. The rest of the document is cut. In published results,
            two or three windows help, and more windows add noise (Nguyen et al., arXiv:2305.18494).
        max_batch_tokens: The largest number of tokens of a batch, padding included. It limits memory use. On a CPU,
            each thread may compute a batch of this size at the same time. None means a number that suits the device.
        batch_size: The largest number of texts of a batch. None means that only `max_batch_tokens` limits a batch.
        num_threads: The number of threads that compute on a CPU. None means the smaller of two numbers: the number of
            cores that this process may use, and torch's number of threads. Torch's own settings do not change.
        query_prompt: Text to put before each query. None means the repository's prompt.
        document_prompt: Text to put before each document. None means the repository's prompt.
        query_pruning: Which terms of a query are kept. None means the repository's `max_active_dims`, if any.
        document_pruning: Which terms of a document are kept. None means the rule of the model's authors. This rule is
            the repository's `max_active_dims` or, for OpenSearch's v3 models, `max_ratio=0.1`. `Pruning()` keeps all
            terms.
        pooling_strategy: "max" or "sum". None means the repository's value.
        activation_function: "relu" or "log1p_relu". None means the repository's value.
        special_terms: Whether to "keep" or "drop" the terms of special tokens, such as [SEP]. None means the choice of
            the model's authors.
        lower_case: Whether texts are lowercased before they are tokenised. Some models have a cased tokenizer, but were
            trained on lowercased texts. None means what the repository states (`do_lower_case`).
        cache_dir: The folder for downloads from the hub.
        token: An access token for gated repositories on the hub.
        local_files_only: Whether to use only local files and never ask the hub.
        trust_remote_code: Whether code from the repository may run. If True, the revision of the code is logged.

    Raises:
        FileNotFoundError: The model does not exist or cannot be reached.
        UnsupportedModelError: The model does not produce SPLADE weights. The message says what was found.
        ValueError: An option has an invalid value, or this machine does not have the device.
        TypeError: An option is unknown.
        OptionalDependencyError: OpenVINO is requested, but is missing or too old. Or `long_documents` is "max", and the
            installed version of `tokenizers` loses all windows except the first.

    Example:
        >>> encoder = SpladeEncoder(model_folder)
        >>> weights = encoder.encode_documents(["Alan Turing was born in London.", ""])
        >>> weights.shape
        (2, 30522)
        >>> [token for token, weight in encoder.decode(weights, top_k=4)[0]]
        ['born', 'alan', 'turing', 'london']

    Source:
        Formal et al., SPLADE v2, arXiv:2109.10086.
    """

    def __init__(
        self,
        model_name: str | PathLike[str],
        *,
        device: Device = "auto",
        dtype: Dtype = "auto",
        backend: Backend = "torch",
        max_length: int | None = None,
        long_documents: LongDocuments = "truncate",
        max_windows: int = 3,
        revision: str | None = None,
        max_batch_tokens: int | None = None,
        batch_size: int | None = None,
        num_threads: int | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        query_pruning: Pruning | None = None,
        document_pruning: Pruning | None = None,
        pooling_strategy: PoolingStrategy | None = None,
        activation_function: ActivationFunction | None = None,
        special_terms: SpecialTerms | None = None,
        lower_case: bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        check_options(
            max_length=max_length,
            long_documents=long_documents,
            max_windows=max_windows,
            max_batch_tokens=max_batch_tokens,
            batch_size=batch_size,
            num_threads=num_threads,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            query_pruning=query_pruning,
            document_pruning=document_pruning,
            lower_case=lower_case,
        )
        check_tokenizers(windows=long_documents == "max")
        self.model_name = fspath(model_name)
        self._requested: dict[str, Any] = {
            "device": device,
            "dtype": dtype,
            "backend": backend,
            "num_threads": num_threads,
        }
        if any(self._requested[name] not in valid for name, valid in _ALWAYS_VALID.items()):
            _ = self._compute  # refuses an invalid value now, not when the first document comes
        hub_options = {
            "revision": revision,
            "cache_dir": cache_dir,
            "token": token,
            "local_files_only": local_files_only,
        }
        self.spec = override(
            describe(Repository(self.model_name, hub_options, trust_remote_code)),
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            pooling_strategy=pooling_strategy,
            activation_function=activation_function,
            special_terms=special_terms,
            lower_case=lower_case,
        )
        windows = int(max_windows) if long_documents == "max" else 1
        self._settings = role_settings(self.spec, windows, query_pruning, document_pruning)
        limits = BatchLimits(tokens=max_batch_tokens, texts=batch_size)
        self._roles = RoleEncoders(
            self.model_name, self.spec, lambda: self._compute, max_length=max_length, limits=limits
        )
        # The query encoder and the document encoder load now, with one exception: if queries need no transformer, the
        # document encoder loads when the first documents come.
        first = self._roles["query"]
        if self.spec.query.transformer is not None:
            first = self._roles["document"]
        self.dim: int = first.dim
        self.max_length: int = int(self._roles.max_length())
        if lower_case is False and lowers_case(first.tokenizer):
            raise ValueError(
                f"lower_case must be True or None, got False. Leave it out. The tokenizer of {self.model_name!r} "
                "always lowercases texts."
            )

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer, as an object of transformers. The first access loads it if nothing has used it yet."""
        return self._roles.full_tokenizer()

    @cached_property
    def _compute(self) -> Compute:
        """The device and the number type with which the model computes. The first access imports torch."""
        with require_torch(self.model_name, "its device and number type"):
            from splade_integrations.engine.compute import resolve_compute

        return resolve_compute(**self._requested)

    @property
    def device(self) -> ResolvedDevice:
        """The device on which the model computes."""
        return self._compute.device

    @property
    def dtype(self) -> ResolvedDtype:
        """The number type in which the linear layers compute. Term weights are always float32."""
        return self._compute.dtype

    @property
    def backend(self) -> Backend:
        """The library that computes the layers: "torch" or "openvino"."""
        backend: Backend = self._requested["backend"]
        return backend

    @property
    def num_threads(self) -> int:
        """The number of threads that compute, if the device is a CPU."""
        return self._compute.threads

    def encode_documents(self, texts: Iterable[str], show_progress: ShowProgress = False) -> csr_array:
        """Encode documents.

        Args:
            texts: A list or another ordered iterable of str. "" is a valid text.
            show_progress: True shows a progress bar on stderr. If it is a function, it is called with the number of
                texts encoded since its last call.
        Returns:
            Term weights, 0 or more, on a natural log scale. (len(texts), dim) float32 with sorted int32 indices and no
            stored zeros.
        Raises:
            TypeError: `texts` is a bare str, or one of its items is not a str. The message names the item's position.
        """
        return encode(check_texts(texts), self._roles["document"], self._settings["document"], show_progress)

    def encode_queries(self, texts: Iterable[str], show_progress: ShowProgress = False) -> csr_array:
        """Encode queries. The arguments, results and errors are as in `encode_documents`."""
        return encode(check_texts(texts), self._roles["query"], self._settings["query"], show_progress)

    def encode_as_given(self, texts: Iterable[str], show_progress: ShowProgress = False) -> csr_array:
        """Encode texts with the document encoder, but without a prompt and without pruning.

        The arguments, results and errors are as in `encode_documents`.

        Example:
            >>> encoder = SpladeEncoder(model_folder, document_pruning=Pruning(max_active_dims=4))
            >>> text = ["Alan Turing was born in London."]
            >>> encoder.encode_documents(text).nnz, encoder.encode_as_given(text).nnz > 4
            (4, True)
        """
        settings = replace(self._settings["document"], prompt="", pruning=Pruning())
        return encode(check_texts(texts), self._roles["document"], settings, show_progress)

    def encode_documents_with_dense(
        self, texts: Iterable[str], show_progress: ShowProgress = False
    ) -> tuple[csr_array, NDArray[np.float32]]:
        """Encode documents as sparse rows and as dense vectors, in one pass of the model. Only BGE-M3 computes both.

        Args:
            texts: As in `encode_documents`.
            show_progress: As in `encode_documents`.
        Returns:
            The result of `encode_documents`, and dense vectors of length 1, (len(texts), hidden size) float32. The
            dense vectors are the same as those of sentence-transformers and FlagEmbedding.
        Raises:
            TypeError: As in `encode_documents`.
            ValueError: The model has no dense vectors. Or `long_documents` is "max", which works only for sparse rows.
        """
        return self._encode_with_dense("document", check_texts(texts), show_progress)

    def encode_queries_with_dense(
        self, texts: Iterable[str], show_progress: ShowProgress = False
    ) -> tuple[csr_array, NDArray[np.float32]]:
        """Encode queries as sparse rows and as dense vectors, in one pass of the model.

        The arguments, results and errors are as in `encode_documents_with_dense`.
        """
        return self._encode_with_dense("query", check_texts(texts), show_progress)

    def stream_documents(
        self, texts: Iterable[str], show_progress: ShowProgress = False, *, block_rows: int | None = None
    ) -> Iterator[csr_array]:
        """Encode documents as they arrive. Memory use does not grow with the number of documents.

        Args:
            texts: Any iterable of str, such as a generator that reads a file.
            show_progress: As in `encode_documents`.
            block_rows: The number of rows in each matrix that is yielded (a block). Texts of similar length within a
                block are batched together. So with larger blocks there is less padding. None means 2 048 on CUDA, where
                batches are larger, and 512 on other devices.
        Yields:
            Blocks of `block_rows` rows, in the order of the texts. The last block may have fewer rows. Each block has
            the form of a result of `encode_documents`. Texts are read at most one block ahead.
        Raises:
            TypeError: `texts` is a bare str, or one of its items is not a str. If an item is not a str, all full blocks
                before it are yielded first.
        """
        check_at_least_one("block_rows", block_rows)
        checked, settings = iterate_texts(texts), self._settings["document"]
        return stream_rows(checked, self._roles["document"], settings, show_progress, block_rows=block_rows)

    def count_tokens(self, role: Role, texts: Iterable[str]) -> list[TokenCount]:
        """Count the tokens of each text, and how many of them encoding would cut off.

        Args:
            role: "document" or "query". The tokens of the role's prompt are counted as well.
            texts: N texts.
        Returns:
            N counts. They include special tokens.
        Raises:
            TypeError: As in `encode_documents`.

        Example:
            >>> encoder = SpladeEncoder(model_folder, max_length=6)
            >>> encoder.count_tokens("document", ["Cats purr.", "Alan Turing was born in London."])
            [TokenCount(tokens=6, tokens_lost=0), TokenCount(tokens=9, tokens_lost=3)]
        """
        return count_tokens(check_texts(texts), self._roles[role], self._settings[role])

    def surely_fits(self, role: Role, text: str) -> bool:
        """Return True if a text is certain to fit, which means that encoding cuts off nothing.

        If the result is False, the text may still fit, and only `count_tokens` can tell. This check takes almost no
        time, because it does not tokenise. It assumes two tokens for each ASCII character and 66 tokens for each other
        character, which is more than any known tokenizer makes. (Unicode's compatibility forms replace U+FDFA by 33
        bytes, and no character by more.)
        """
        limit = self._roles[role].tokenize.max_content_tokens
        if 2 * len(text) > limit:  # comes first, because counting the characters of a long text takes milliseconds
            return False
        text = self._settings[role].prompt + text
        others = 0 if text.isascii() else sum(not character.isascii() for character in text)
        return 2 * (len(text) - others) + 66 * others <= limit

    def decode(self, embeddings: csr_array, top_k: int | None = None) -> list[list[tuple[str, float]]]:
        """Name the terms of sparse embeddings.

        Args:
            embeddings: Rows of term weights. (N, dim), or one row of (dim,).
            top_k: The largest number of terms per row. None means all terms.
        Returns:
            For each row, its (token, weight) pairs, sorted by falling weight and then by token id.
        Raises:
            TypeError: `embeddings` is not a scipy sparse matrix.
            ValueError: `top_k` is not an int of 0 or more, or the rows do not have `dim` columns.
        """
        if not (top_k is None or (is_integer(top_k) and top_k >= 0)):
            raise ValueError(f"top_k must be an int of 0 or more, or None, got {top_k!r}. Use None for all terms.")
        rows = as_rows(embeddings)
        if rows.shape[1] != self.dim:
            raise ValueError(
                f"embeddings must have {self.dim} columns, one for each term, got {rows.shape[1]}. Decode them with "
                "the encoder that made them."
            )
        decoded = []
        tokenizer = self._roles["query"].tokenizer
        for start, end in pairwise(rows.indptr):
            ids, weights = rows.indices[start:end], rows.data[start:end]
            order = np.lexsort((ids, -weights))[:top_k]
            tokens = token_names(tokenizer, ids[order].tolist())
            decoded.append(list(zip(tokens, weights[order].tolist(), strict=True)))
        return decoded

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Everything that affects the encoder's rows of documents, or their comparison with rows of queries.

        All rows of a collection should come from encoders with the same fingerprint.
        """
        settings = self._settings["document"]
        return compute_fingerprint(
            self.model_name,
            self.spec,
            document_pruning=settings.pruning,
            max_length=self.max_length,
            max_windows=settings.max_windows if settings.max_windows > 1 else None,
        )

    def explain(self, query: str, document: str) -> Explanation:
        """Explain why a document matches a query.

        For each term that the query and the document share, the explanation says what the term adds to the score, and
        which words the term's weights come from.

        Args:
            query: The query.
            document: The document. It is cut, or read in windows, as in `encode_documents`.
        Returns:
            The explanation as plain data. `rich.print` and notebooks show it as highlighted text and bars, and
            `.plot()` draws the bars.
        Raises:
            TypeError: `query` or `document` is not a str.

        Example:
            >>> encoder = SpladeEncoder(model_folder)
            >>> explanation = encoder.explain("who cracked enigma", "Alan Turing broke the Enigma cipher.")
            >>> [(term.label, term.in_document, term.document_place.word) for term in explanation.terms[:2]]
            [('enigma', True, 'Enigma'), ('broke', True, 'broke')]
        """
        for name, text in {"query": query, "document": document}.items():
            if not isinstance(text, str):
                raise TypeError(
                    f"{name} must be a str, got {type(text).__name__}. Explain one query and one document at a time."
                )
        from splade_integrations.encoding.explain import EncodedText, explain

        return explain(
            EncodedText.of(query, self._roles["query"], self._settings["query"]),
            EncodedText.of(document, self._roles["document"], self._settings["document"]),
        )

    def explain_stored(self, query: str, documents: Sequence[str], rows: csr_array) -> list[Explanation]:
        """Explain why documents match a query, based on the rows that a collection holds.

        The model runs only on the query. The scores equal those of the collection exactly, even if its documents were
        cut or pruned with other settings than this encoder's.

        Args:
            query: The query.
            documents: N documents.
            rows: Their stored rows. (N, dim).
        Returns:
            N explanations. If a term is not one of the document's own tokens, its `document_place` is None.
        Raises:
            ValueError: The number of rows is not N.

        Example:
            >>> encoder = SpladeEncoder(model_folder)
            >>> texts = ["Alan Turing broke the Enigma cipher.", "Cats purr."]
            >>> stored = encoder.encode_documents(texts)
            >>> first, second = encoder.explain_stored("who cracked enigma", texts, stored)
            >>> first.terms[0].label, first.score > second.score
            ('enigma', True)
        """
        if rows.shape[0] != len(documents):
            raise ValueError(
                f"rows must have one row for each of {len(documents)} documents, got {rows.shape[0]} rows. Pass the "
                "stored row of each document."
            )
        from splade_integrations.encoding.explain import EncodedText, explain_stored

        encoder, settings = self._roles["document"], self._settings["document"]
        stored = [EncodedText(text, rows[[place]], encoder, settings) for place, text in enumerate(documents)]
        return explain_stored(EncodedText.of(query, self._roles["query"], self._settings["query"]), stored)

    def __copy__(self) -> SpladeEncoder:
        return self  # because an encoder may be shared

    def __deepcopy__(self, memo: dict[int, Any]) -> SpladeEncoder:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "SpladeEncoder cannot be pickled, because its model is large. Pickle its model name and options, and load "
            "it again where it is needed."
        )

    def __repr__(self) -> str:
        roles = {"documents": self.spec.document, "queries": self.spec.query}
        if self.spec.document == self.spec.query:
            roles = {"texts": self.spec.document}
        device, dtype = self._requested["device"], self._requested["dtype"]
        if "_compute" in self.__dict__:  # if not, torch may not be loaded yet, and printing must not load it
            device, dtype = self.device, str(self.dtype).removeprefix("torch.")
        computing = f"device='{device}', dtype='{dtype}', max_length={self.max_length}, dim={self.dim}"
        if self.backend != "torch":
            computing += f", backend='{self.backend}'"
        lines = [f"{self.model_name!r}", computing, *(f"{name}: {role}" for name, role in roles.items())]
        if self.spec.special_terms == "drop":
            lines.append("terms of special tokens dropped")
        for role_name, settings in self._settings.items():
            if settings.pruning != Pruning():
                lines.append(f"{role_name}_pruning={settings.pruning}")
        if self._settings["document"].max_windows > 1:
            lines.append(f"long documents in up to {self._settings['document'].max_windows} windows")
        return "SpladeEncoder(\n  " + "\n  ".join(lines) + "\n)"

    def _encode_with_dense(
        self, role: Role, texts: list[str], show_progress: ShowProgress
    ) -> tuple[csr_array, NDArray[np.float32]]:
        model = f"{self.model_name!r}, a model of {self.spec.document}"
        return encode_with_dense(texts, self._roles[role], self._settings[role], show_progress, model=model)
