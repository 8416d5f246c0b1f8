"""Makes queries from a corpus that has no judged queries, to find a retriever that is far behind the others.

Each query is a sentence that is removed from a document. This document is the only right answer. Such queries are
easier than a user's questions and share more words with their documents. So they cannot tell which of two good
retrievers is better, but they do show a retriever that fails. `docs/fusion.md` has the figures.
"""

import random
import re
from collections.abc import Mapping
from pathlib import Path

from splade_integrations.evaluation.dataset import Dataset, DatasetError, read_corpus

__all__ = ["FAR_BEHIND", "MADE_MEASURE", "far_behind", "made_queries", "verdict"]

MADE_MEASURE = "MRR@10"
# A retriever with less than this share of the best retriever's MRR@10 is far behind. On 54 variants of two datasets, we
# left such retrievers out of a fusion with equal weights, and no variant's results got worse. With a share of 0.6
# instead of 0.4, the results of three variants got worse. `python -m checks.weak_sides` prints these figures.
FAR_BEHIND = 0.4

_QUERIES = 300
_LEAST_QUERIES = 40
_LEAST_CHARACTERS = 30  # shorter sentences, such as "See below.", fit many documents
_SEED = 0  # of the random choices; fixed, so that each run makes the same queries
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


def made_queries(folder: str | Path, queries: int = _QUERIES) -> Dataset:
    """Make a dataset that has sentences of its documents as queries. Only `corpus.jsonl` is read.

    Args:
        folder: A folder with corpus.jsonl, in BEIR layout.
        queries: The largest number of queries. Each query comes from a different document, and is removed from that
            document.
    Raises:
        DatasetError: The file is missing or broken, or too few documents have two sentences.
    """
    corpus = read_corpus(folder)
    chosen = random.Random(_SEED)
    sentences = {key: [part for part in _SENTENCE_ENDS.split(text) if part.strip()] for key, text in corpus.items()}
    long = {key: [part for part in parts if len(part) >= _LEAST_CHARACTERS] for key, parts in sentences.items()}
    usable = [key for key in corpus if len(sentences[key]) > 1 and long[key]]
    if len(usable) < _LEAST_QUERIES:
        raise DatasetError(
            f"{Path(folder) / 'corpus.jsonl'} must have at least {_LEAST_QUERIES} documents of two sentences or more, "
            f"got {len(usable)}. Without them no queries can be made. Write some judged queries instead."
        )
    made = {key: chosen.choice(long[key]) for key in chosen.sample(usable, min(queries, len(usable)))}
    documents = {key: text.replace(made[key], " ", 1) if key in made else text for key, text in corpus.items()}
    return Dataset(
        name=f"{Path(folder).resolve().name}, made queries",
        document_ids=list(documents),
        documents=list(documents.values()),
        query_ids=list(made),
        queries=[sentence.strip() for sentence in made.values()],
        qrels={key: {key: 1} for key in made},
    )


def far_behind(values: Mapping[str, float], threshold: float = FAR_BEHIND) -> list[str]:
    """Return the retrievers that are far behind the best one.

    Args:
        values: {retriever: its MRR@10 on made queries}.
        threshold: The share of the best value that a retriever must reach.

    Example:
        >>> far_behind({"BM25": 0.7, "dense": 0.2, "SPLADE": 0.6})
        ['dense']
    """
    best = max(values.values(), default=0.0)
    return [name for name, value in values.items() if value < threshold * best]


def verdict(values: Mapping[str, float]) -> str:
    """Return a sentence that names the retrievers to leave out of a fusion, or says that no retriever is far behind.

    Args:
        values: {retriever: its MRR@10 on made queries}.
    """
    weak = far_behind(values)
    best = max(values, key=values.__getitem__)
    if not weak:
        return "No retriever is far behind. Only judged queries can tell which of them is best."
    found = ", ".join(f"{name} ({MADE_MEASURE} {values[name]:.3f})" for name in weak)
    return (
        f"Far behind {best} ({values[best]:.3f}): {found}. Leave it out of the fusion, or find out what is wrong with "
        "it. Only judged queries can tell which of the others is best."
    )
