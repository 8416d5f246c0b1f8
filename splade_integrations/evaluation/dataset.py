"""A test collection in BEIR layout: a corpus, the queries that somebody judged, and the judgments.

Knows no model, no store and no measure.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from splade_integrations.records import RecordError, Records, numbered_lines

__all__ = ["Collection", "CollectionError", "load_collection"]


class CollectionError(RecordError):
    """A folder is no test collection in BEIR layout; the message names file and line, and says what to do."""


@dataclass(frozen=True)
class Collection:
    """A corpus, the queries that somebody judged, and the judgments.

    Args:
        name: Name of the folder.
        document_ids: One per document, unique.
        documents: Title and text of each document, joined by a space. May be empty.
        query_ids: One per judged query, in the order of the judgments.
        queries: Text of each judged query.
        qrels: Grades, 1 and more being relevant: {query id: {document id: grade}}.
        train: The same corpus with the queries of the train split, or None. Only settings are chosen on it.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    train: "Collection | None" = None

    @property
    def judgments(self) -> int:
        """Judged pairs of query and document."""
        return sum(map(len, self.qrels.values()))

    @property
    def judged_but_absent(self) -> int:
        """Judgments whose document is not in the corpus: nothing can find those."""
        known = set(self.document_ids)
        return sum(document not in known for grades in self.qrels.values() for document in grades)


def load_collection(folder: str | Path) -> Collection:
    """Read `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` (or BEIR's own `qrels/test.tsv`).

    A train split, if there is one, is `qrels_train.tsv` or `qrels/train.tsv`, its queries in `queries_train.jsonl` or
    among the others.

    Raises:
        CollectionError: A file is missing, empty or broken (its line is named), the files do not fit together, or a
            query is in both splits.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CollectionError(f"{folder} must be a folder, and is {'a file' if folder.exists() else 'not there'}.")
    corpus = _read_jsonl(folder / "corpus.jsonl", title_field="title")
    test = _split(folder, corpus, "test", folder / "qrels.tsv", folder / "queries.jsonl")
    train_file = next((f for f in (folder / "qrels_train.tsv", folder / "qrels" / "train.tsv") if f.is_file()), None)
    if train_file is None:
        return test
    own = folder / "queries_train.jsonl"
    train = _split(folder, corpus, "train", train_file, own if own.is_file() else folder / "queries.jsonl")
    both = next((query for query in train.query_ids if query in test.qrels), None)
    if both is not None:
        raise CollectionError(
            f"{train_file} judges query {both!r}, which the test split judges, too. Take it out of one: settings "
            "must not be chosen on what is reported."
        )
    return replace(test, train=train)


def _split(folder: Path, corpus: dict[str, str], split: str, qrels_file: Path, queries_file: Path) -> Collection:
    if not qrels_file.is_file() and (folder / "qrels" / f"{split}.tsv").is_file():
        qrels_file = folder / "qrels" / f"{split}.tsv"
    queries = _read_jsonl(queries_file, title_field=None)
    qrels = _read_qrels(qrels_file)
    unknown = next((query for query in qrels if query not in queries), None)
    if unknown is not None:
        raise CollectionError(
            f"{qrels_file} judges query {unknown!r}, which {queries_file} lacks. "
            "Put queries and judgments of the same split together."
        )
    return Collection(
        name=folder.resolve().name,
        document_ids=list(corpus),
        documents=list(corpus.values()),
        query_ids=list(qrels),
        queries=[queries[query] for query in qrels],
        qrels=qrels,
    )


def _read_jsonl(file: Path, *, title_field: str | None) -> dict[str, str]:
    """{id: text} of a file of JSON objects, in its order."""
    records = Records(str(file), "jsonl", title_field=title_field, id_field="_id", need_id=True)
    try:
        return {record.id: record.text.strip() if title_field else record.text for record in records}
    except RecordError as err:
        raise CollectionError(f"{err} A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv.") from err


def _read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """{query id: {document id: grade}} of a tab-separated file, whose header line may be missing."""
    qrels: dict[str, dict[str, int]] = {}
    try:
        for number, (place, line) in enumerate(numbered_lines(str(file))):
            columns = line.rstrip().split("\t")
            try:
                query, document, score = columns
                grade = int(score)
            except ValueError as err:
                if number == 0 and len(columns) == 3:
                    continue  # the header
                raise CollectionError(
                    f"{place}: must be query-id, corpus-id and an integer score with tabs between, got {line[:80]!r}. "
                    "Mend or drop the line; of TREC's four columns, drop the second."
                ) from err
            qrels.setdefault(query, {})[document] = grade
    except CollectionError:
        raise
    except RecordError as err:
        raise CollectionError(f"{err} A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv.") from err
    if not qrels:
        raise CollectionError(f"{file} must have at least one judgment, and has a header line only.")
    return qrels
