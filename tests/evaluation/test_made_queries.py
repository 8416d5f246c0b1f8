"""Tests of queries that are made from the documents: what they are, and which retriever they show to be far behind."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from splade_integrations.cli.app import app
from splade_integrations.evaluation import Bm25, DatasetError
from splade_integrations.evaluation.made_queries import MADE_MEASURE, far_behind, made_queries, verdict
from splade_integrations.evaluation.measures import per_query
from splade_integrations.evaluation.ranking import Ranking

WORDS = [f"{start}{vowel}{end}" for start in "bdfgklmnprst" for vowel in "aeiou" for end in "lnrst"]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with 60 documents of four sentences, one of one sentence, and one without text."""
    random = np.random.default_rng(0)
    texts = [" ".join(" ".join(random.choice(WORDS, 9)) + "." for _ in range(4)) for _ in range(60)]
    rows = [{"_id": str(number), "text": text} for number, text in enumerate([*texts, "One sentence only.", ""])]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def corpus(folder):
    return {row["_id"]: row["text"] for row in map(json.loads, (folder / "corpus.jsonl").read_text().splitlines())}


def test_a_made_query_is_a_sentence_that_its_document_no_longer_holds(folder):
    stored = corpus(folder)
    made = made_queries(folder, 40)
    assert len(made.queries) == len(set(made.query_ids)) == 40
    documents = dict(zip(made.document_ids, made.documents, strict=True))
    assert list(documents) == list(stored)
    for key, query in zip(made.query_ids, made.queries, strict=True):
        assert made.qrels[key] == {key: 1}
        assert query in stored[key]
        assert query not in documents[key]
        assert sorted((documents[key] + " " + query).split()) == sorted(stored[key].split())
    others = set(stored) - set(made.query_ids)
    assert {key: documents[key] for key in others} == {key: stored[key] for key in others}
    assert made == made_queries(folder, 40)


def test_documents_of_one_sentence_give_no_query(folder):
    made = made_queries(folder)
    assert set(made.query_ids) == {str(number) for number in range(60)}


def test_too_few_documents_are_refused(folder):
    rows = (folder / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(rows[:39]))
    with pytest.raises(DatasetError, match="at least 40 documents of two sentences or more, got 39"):
        made_queries(folder)


def test_a_retriever_that_guesses_is_far_behind_and_a_slightly_worse_one_is_not(folder):
    made = made_queries(folder)
    place = {key: row for row, key in enumerate(made.document_ids)}
    random = np.random.default_rng(0)
    guesses = [Ranking(random.permutation(len(place))[:30].tolist(), list(range(30, 0, -1))) for _ in made.queries]
    good = [Ranking([place[key]], [1.0]) for key in made.query_ids]
    second = [Ranking([(place[key] + 1) % len(place), place[key]], [2.0, 1.0]) for key in made.query_ids]
    values = {
        name: float(per_query(made, found, [MADE_MEASURE])[MADE_MEASURE].mean())
        for name, found in {"good": good, "second": second, "guesses": guesses}.items()
    }
    assert far_behind(values) == ["guesses"]
    assert "Far behind good (1.000): guesses" in verdict(values)
    assert verdict({"good": 1.0, "second": 0.5}).startswith("No retriever is far behind")


def test_words_of_a_sentence_find_its_document_in_a_language_without_spaces(tmp_path):
    text = "".join(f"这是第{number}个句子它在这里只有一次请你记住它的内容吧谢谢大家。" for number in range(3))
    rows = [{"_id": str(number), "text": text.replace("第", f"第{number}")} for number in range(40)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert all(query.endswith("。") and query.count("。") == 1 for query in made_queries(tmp_path).queries)


def test_the_command_needs_only_the_corpus_and_refuses_to_fit(folder):
    run = CliRunner().invoke(app, ["evaluate", str(folder), "--made-queries", "--dense", "none", "--json"])
    assert run.exit_code == 0, run.output
    [dataset] = json.loads(run.stdout)["datasets"]
    [comparison] = dataset["comparisons"]
    assert (comparison["queries"], comparison["judgments"], comparison["documents"]) == (60, 60, 62)
    bm25 = Bm25(made_queries(folder).documents, stemmed=True)
    expected = per_query(
        made_queries(folder), bm25.rank(bm25.encode(made_queries(folder).queries), 100), [MADE_MEASURE]
    )
    [found] = [system for system in comparison["systems"] if system["name"] == "BM25"]
    assert found["measures"][MADE_MEASURE] == pytest.approx(expected[MADE_MEASURE].mean())
    refused = CliRunner().invoke(app, ["evaluate", str(folder), "--made-queries", "--fit"])
    assert refused.exit_code != 0
    assert "--fit must be given with judged queries" in " ".join(str(refused.exception or refused.output).split())
