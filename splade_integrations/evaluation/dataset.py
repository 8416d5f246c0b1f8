"""Reads test datasets in the layout of the BEIR benchmark: a corpus, judged queries, and the judgments."""

from dataclasses import dataclass, replace
from pathlib import Path

from splade_integrations.records import RecordError, Records, numbered_lines

__all__ = ["Dataset", "DatasetError", "load_dataset", "read_corpus"]


class DatasetError(RecordError):
    """A folder does not hold a test dataset in BEIR layout. The message names the file, and says what to do."""


@dataclass(frozen=True)
class Dataset:
    """A corpus, judged queries, and the judgments. A judgment says how relevant a document is for a query.

    Args:
        name: The name of the folder.
        document_ids: One unique id per document.
        documents: The title and text of each document, joined by a space. A document may be empty.
        query_ids: One id per judged query, in the order of the judgments.
        queries: The text of each judged query.
        qrels: The judgments: {query id: {document id: grade}}. A grade of 1 or more means relevant.
        train: A dataset with the same corpus and the queries of the train split, or None without a train split.
            Settings such as fusion weights are chosen on the train split. Results are reported only for queries outside
            the train split.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, dict[str, int]]
    train: "Dataset | None" = None

    @property
    def judgments(self) -> int:
        """The number of judged pairs of a query and a document."""
        return sum(map(len, self.qrels.values()))

    @property
    def judged_but_absent(self) -> int:
        """The number of judgments of documents that are not in the corpus. No retriever can find these documents."""
        known = set(self.document_ids)
        return sum(document not in known for grades in self.qrels.values() for document in grades)


def load_dataset(folder: str | Path) -> Dataset:
    """Read a dataset from the files `corpus.jsonl`, `queries.jsonl` and `qrels.tsv` in a folder.

    Instead of `qrels.tsv`, the folder may have BEIR's own `qrels/test.tsv`. If there is a train split, its judgments
    are in `qrels_train.tsv` or `qrels/train.tsv`, and its queries are in `queries_train.jsonl` or `queries.jsonl`.

    Raises:
        DatasetError: A file is missing, empty or broken, the files do not fit together, or a query is in both splits.
            If a line is broken, the message names the line.
    """
    folder = Path(folder)
    corpus = read_corpus(folder)
    test = _split(folder, corpus, "test", folder / "qrels.tsv", folder / "queries.jsonl")
    train_file = next((f for f in (folder / "qrels_train.tsv", folder / "qrels" / "train.tsv") if f.is_file()), None)
    if train_file is None:
        return test
    own = folder / "queries_train.jsonl"
    train = _split(folder, corpus, "train", train_file, own if own.is_file() else folder / "queries.jsonl")
    both = next((query for query in train.query_ids if query in test.qrels), None)
    if both is not None:
        raise DatasetError(
            f"{train_file} judges query {both!r}, which the test split also judges. Remove the query from one split, "
            "because settings must not be chosen on queries whose results are reported."
        )
    return replace(test, train=train)


def read_corpus(folder: str | Path) -> dict[str, str]:
    """Return {id: title and text} of `corpus.jsonl` in a folder, in the order of the file.

    Raises:
        DatasetError: The file is missing, empty or broken. If a line is broken, the message names the line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder} must be a folder in BEIR layout, but it {found}. Check the name.")
    return _read_jsonl(folder / "corpus.jsonl", title_field="title")


def _split(folder: Path, corpus: dict[str, str], split: str, qrels_file: Path, queries_file: Path) -> Dataset:
    if not qrels_file.is_file() and (folder / "qrels" / f"{split}.tsv").is_file():
        qrels_file = folder / "qrels" / f"{split}.tsv"
    queries = _read_jsonl(queries_file, title_field=None)
    qrels = _read_qrels(qrels_file)
    unknown = next((query for query in qrels if query not in queries), None)
    if unknown is not None:
        raise DatasetError(
            f"{qrels_file} judges query {unknown!r}, which {queries_file} lacks. "
            "Use the queries and judgments of the same split."
        )
    return Dataset(
        name=folder.resolve().name,
        document_ids=list(corpus),
        documents=list(corpus.values()),
        query_ids=list(qrels),
        queries=[queries[query] for query in qrels],
        qrels=qrels,
    )


def _read_jsonl(file: Path, *, title_field: str | None) -> dict[str, str]:
    """Return {id: text} of a file of JSON objects, in the order of the file."""
    records = Records(str(file), "jsonl", title_field=title_field, id_field="_id", need_id=True)
    try:
        return {record.id: record.text.strip() if title_field else record.text for record in records}
    except RecordError as err:
        raise DatasetError(f"{err} A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv.") from err


def _read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """Return {query id: {document id: grade}} of a tab-separated file with or without a header line."""
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
                raise DatasetError(
                    f"{place}: must be query-id, corpus-id and an integer score, separated by tabs, got "
                    f"{line[:80]!r}. Fix or drop the line. If the file has TREC's four columns, drop the second column."
                ) from err
            qrels.setdefault(query, {})[document] = grade
    except DatasetError:
        raise
    except RecordError as err:
        raise DatasetError(f"{err} A BEIR folder has corpus.jsonl, queries.jsonl and qrels.tsv.") from err
    if not qrels:
        raise DatasetError(f"{file} must have at least one judgment, but it has only a header line. Add a judgment.")
    return qrels
