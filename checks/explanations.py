"""Check that explanations add up to Milvus's scores, and that each term names the token with its largest logit.

    python -m checks.explanations FOLDER [--pairs 200]

FOLDER is a dataset in BEIR layout. The check takes the dataset's first queries, and stores in Milvus the documents that
are judged for at least one of these queries. A pair is a query and its first hit. The logits are computed with
transformers, without this package. The exit status is 1 if a difference is larger than 1e-4.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from benchmarks.workload import quiet
from splade_integrations import SpladeEncoder
from splade_integrations.evaluation import Dataset, Splade, load_dataset
from splade_integrations.evaluation.milvus import MilvusCollection
from splade_integrations.models.offline import splade_model_path

__all__ = ["Differences", "compare", "main"]

_MAX_LENGTH = 256
_TOLERANCE = 1e-4


@dataclass
class Differences:
    """The largest differences over all pairs, and what was compared.

    Args:
        documents: The number of documents in Milvus.
        pairs: The number of pairs of a query and its first hit.
        terms: The number of terms that a query and its document share, summed over all pairs.
        expansions: The number of shared terms that the document does not contain.
        from_milvus: The largest difference between the sum of an explanation's contributions and Milvus's score.
        from_own_score: The largest difference between this sum and the explanation's own score.
        from_largest_logit: The largest difference between a term's largest logit and its logit at the token that the
            explanation names.
    """

    documents: int
    pairs: int = 0
    terms: int = 0
    expansions: int = 0
    from_milvus: float = 0.0
    from_own_score: float = 0.0
    from_largest_logit: float = 0.0

    @property
    def largest(self) -> float:
        """The largest of the three differences."""
        return max(self.from_milvus, self.from_own_score, self.from_largest_logit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m checks.explanations", description="Check explanations against Milvus and plain transformers."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a dataset in BEIR layout, such as SciFact")
    parser.add_argument("--pairs", type=int, default=200, help="number of queries (default: %(default)s)")
    options = parser.parse_args(arguments)
    quiet()
    found = compare(load_dataset(options.folder), options.pairs)
    print(
        f"{found.pairs} pairs, {found.documents} documents, {found.terms} shared terms, {found.expansions} expansions"
    )
    print(f"largest difference between the sum of contributions and Milvus's score:        {found.from_milvus:.2e}")
    print(f"largest difference between the sum and the explanation's own score:            {found.from_own_score:.2e}")
    print(
        f"largest difference between a term's largest logit and the named token's logit: {found.from_largest_logit:.2e}"
    )
    print(f"largest difference allowed: {_TOLERANCE}")
    return int(found.largest > _TOLERANCE)


def compare(dataset: Dataset, pairs: int) -> Differences:
    """Explain the first hit of each of the first `pairs` queries, and return the largest differences."""
    encoder = SpladeEncoder(splade_model_path(), max_length=_MAX_LENGTH)
    queries = dataset.queries[:pairs]
    judged = {document for query in dataset.query_ids[:pairs] for document in dataset.qrels[query]}
    texts = zip(dataset.document_ids, dataset.documents, strict=True)
    documents = [text for identifier, text in texts if identifier in judged]
    retriever = Splade(encoder, documents)
    with tempfile.TemporaryDirectory() as folder:
        store = MilvusCollection(str(Path(folder) / "explanations.db"), "texts", documents, None, retriever.documents)
        hits = store.search("SPLADE", retriever.encode(queries), 1)
        store.close()
    logits_of = _PlainLogits()
    found = Differences(documents=len(documents))
    for query, hit in zip(queries, hits, strict=True):
        explanation = encoder.explain(query, documents[hit.rows[0]])
        total = sum(term.contribution for term in explanation.terms)
        found.from_milvus = max(found.from_milvus, abs(total - hit.scores[0]))
        found.from_own_score = max(found.from_own_score, abs(total - explanation.score))
        for role, text in (("query", explanation.query), ("document", explanation.document)):
            logits = logits_of(text)
            for term in explanation.terms:
                column = logits[:, term.token_id]
                place = getattr(term, f"{role}_place")
                shortfall = float(column.max() - column[place.token_index])
                found.from_largest_logit = max(found.from_largest_logit, shortfall)
        found.pairs += 1
        found.terms += len(explanation.terms)
        found.expansions += sum(term.expansion for term in explanation.terms)
    return found


class _PlainLogits:
    """Computes the logits (L, V) of a text with transformers alone."""

    def __init__(self) -> None:
        self._model: Any = AutoModelForMaskedLM.from_pretrained(splade_model_path(), dtype=torch.float32)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(splade_model_path())

    def __call__(self, text: str) -> torch.Tensor:
        inputs = self._tokenizer(text, truncation=True, max_length=_MAX_LENGTH, return_tensors="pt")
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs).logits[0]
        return logits


if __name__ == "__main__":
    sys.exit(main())
