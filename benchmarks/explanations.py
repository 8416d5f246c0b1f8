"""Do explanations add up to Milvus's scores, and do their places have the largest logit? On a BEIR folder.

    python -m benchmarks.explanations FOLDER [--pairs 200]

The documents that the first queries' judgments name go into Milvus, which finds the pairs: the first hit of each query.
The logits are those of plain transformers.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade_integrations import SpladeEncoder
from splade_integrations.evaluation import Splade
from splade_integrations.evaluation import load_dataset as load_collection
from splade_integrations.evaluation.milvus import MilvusCollection
from splade_integrations.models.offline import splade_model_path

_LONGEST = 256


def main() -> None:
    """Explain the pairs, print the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--pairs", type=int, default=200, help="how many (default: %(default)s)")
    options = parser.parse_args()
    collection = load_collection(options.folder)
    encoder = SpladeEncoder(splade_model_path(), max_length=_LONGEST)
    queries = collection.queries[: options.pairs]
    judged = {document for query in collection.query_ids[: options.pairs] for document in collection.qrels[query]}
    both = zip(collection.document_ids, collection.documents, strict=True)
    documents = [text for identifier, text in both if identifier in judged]
    retriever = Splade(encoder, documents)
    with tempfile.TemporaryDirectory() as folder:
        store = MilvusCollection(str(Path(folder) / "x.db"), "x", documents, None, retriever.documents)
        found = store.search("SPLADE", retriever.encode(queries), 1)
        store.close()
    reference = _Reference()
    score_difference = sum_difference = logit_difference = 0.0
    terms = expansions = 0
    for query, ranking in zip(queries, found, strict=True):
        explanation = encoder.explain(query, documents[ranking.rows[0]])
        total = sum(term.contribution for term in explanation.terms)
        score_difference = max(score_difference, abs(total - ranking.scores[0]))
        sum_difference = max(sum_difference, abs(total - explanation.score))
        for side, text in (("query", explanation.query), ("document", explanation.document)):
            logits = reference(text)
            for term in explanation.terms:
                column = logits[:, term.token_id]
                place = getattr(term, f"{side}_place")
                logit_difference = max(logit_difference, float(column.max() - column[place.token_index]))
        terms += len(explanation.terms)
        expansions += sum(term.expansion for term in explanation.terms)
    print(
        f"{len(queries)} pairs over {len(documents)} documents, {terms} shared terms, {expansions} of them expansions"
    )
    print(f"largest difference of a sum of contributions from Milvus's score: {score_difference:.2e}")
    print(f"largest difference of that sum from the explanation's own score:  {sum_difference:.2e}")
    print(f"largest shortfall of a place's logit from the maximum:            {logit_difference:.2e}")


class _Reference:
    """Logits of a text by plain transformers. (L, V)."""

    def __init__(self) -> None:
        self._model: Any = AutoModelForMaskedLM.from_pretrained(splade_model_path(), dtype=torch.float32)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(splade_model_path())

    def __call__(self, text: str) -> torch.Tensor:
        inputs = self._tokenizer(text, truncation=True, max_length=_LONGEST, return_tensors="pt")
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs).logits[0]
        return logits


if __name__ == "__main__":
    main()
