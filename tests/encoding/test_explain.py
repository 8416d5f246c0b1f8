"""Explanations: contributions sum to the score, terms name the token with their largest logit, words are readable."""

import io
import json

import numpy as np
import pytest
import torch
from pymilvus import DataType, MilvusClient
from transformers import AutoModelForMaskedLM, AutoTokenizer

from splade_integrations import Pruning, SpladeEncoder, to_dicts
from splade_integrations.encoding.explain import readable_tokens
from splade_integrations.encoding.render import highlights
from splade_integrations.milvus.defaults import document_terms
from tests.support.random_checkpoints import save_masked_lm

QUERIES = ["who cracked enigma", "how do I cancel my subscription", "", "naïve café 😀", "wild yeast"]
DOCUMENTS = [
    "Alan Turing broke the Enigma cipher at Bletchley Park.",
    "Ending your membership: unsubscribe at any time; subscriptions are cancelled at once.",
    "",
    "enigmatology \ud800 of   naïve café 日本語 😀",
    "Sourdough rises by wild yeast. " * 60,
]


@pytest.fixture(scope="module")
def reference(model_folder):
    """Return a function that computes the logits of a text, (L, V), with plain transformers."""
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)

    def logits(text):
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            return model(**inputs).logits[0].float().numpy()

    return logits


def test_contributions_sum_to_the_score_of_milvus(encoder, tmp_path):
    uri = str(tmp_path / "explain.db")
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection("explain", schema=schema, index_params=indexes, consistency_level="Strong")
    rows = map(document_terms, to_dicts(encoder.encode_documents(DOCUMENTS)), DOCUMENTS)
    client.insert("explain", [{"row": row, "sparse": terms} for row, terms in enumerate(rows)])
    found = 0
    for query, terms in zip(QUERIES, to_dicts(encoder.encode_queries(QUERIES)), strict=True):
        for hit in client.search("explain", [terms], anns_field="sparse", limit=5)[0]:
            explanation = encoder.explain(query, DOCUMENTS[hit["row"]])
            assert sum(term.contribution for term in explanation.terms) == pytest.approx(explanation.score)
            assert explanation.score == pytest.approx(hit["distance"], abs=1e-4)
            found += 1
    assert found > 10


def test_each_place_has_the_largest_logit(encoder, reference):
    for query in QUERIES:
        for document in DOCUMENTS:
            explanation = encoder.explain(query, document)
            for text, side in ((explanation.query, "query"), (explanation.document, "document")):
                logits = reference(text)
                for term in explanation.terms:
                    place = getattr(term, f"{side}_place")
                    weight = getattr(term, f"{side}_weight")
                    column = logits[:, term.token_id]
                    assert column[place.token_index] >= column.max() - 1e-5
                    assert weight == pytest.approx(np.log1p(column.max()), abs=1e-5)
                    assert place.share == 1
                    if place.start is not None:
                        piece = text[place.start : place.end].lower()
                        assert place.token.lstrip("…")[:1] in (piece[:1], "[", "n", "c")  # accents are stripped
                        assert place.word_start <= place.start < place.end <= place.word_end
                        assert place.word == text[place.word_start : place.word_end]


def test_expansions_are_told_from_the_texts_own_terms(encoder):
    by_label = {t.label: t for t in encoder.explain(QUERIES[0], DOCUMENTS[0]).terms}
    assert by_label["enigma"].in_query
    assert by_label["enigma"].in_document
    assert not by_label["enigma"].expansion
    broke = by_label["broke"]
    assert (broke.in_query, broke.in_document, broke.expansion) == (False, True, True)
    assert (broke.query_place.word, broke.document_place.word) == ("cracked", "broke")


def test_pieces_of_words_are_readable(encoder):
    terms = encoder.explain("enigmatology", "On enigmatology.").terms
    assert terms[0].label == "enigma (enigmatology)"
    assert terms[1].label == "…tology (enigmatology)"
    assert (terms[1].token, terms[1].document_place.word) == ("##tology", "enigmatology")
    words = [DOCUMENTS[0][start:end] for start, end, *_ in highlights(encoder.explain(QUERIES[0], DOCUMENTS[0]))]
    assert {"broke", "Enigma"} <= set(words)


def test_marks_of_other_vocabularies(random_checkpoint_tokenizers):
    byte_level, sentencepiece = random_checkpoint_tokenizers
    assert readable_tokens(byte_level, ["Ġbank", "bank", "Ċ", "<s>"]) == ["bank", "…bank", "\\n", "<s>"]
    assert readable_tokens(sentencepiece, ["▁bank", "ing", "."]) == ["bank", "…ing", "."]


@pytest.fixture
def random_checkpoint_tokenizers():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", *(f"{mark}w{n}" for mark in ("Ġ", "▁") for n in range(120))]
    made = []
    for mark, decoder in (("Ġ", decoders.ByteLevel()), ("▁", decoders.Metaspace())):
        pieces = [word for word in words if word[0] in (mark, "<")] + [f"{mark}bank", "bank", "ing", ".", "Ċ"]
        tokenizer = Tokenizer(models.WordLevel({piece: n for n, piece in enumerate(pieces)}, unk_token="<s>"))
        tokenizer.decoder = decoder
        made.append(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"))
    return made


def test_settings_are_respected(model_folder):
    encoder = SpladeEncoder(
        model_folder,
        max_length=16,
        query_prompt="question: ",
        document_prompt="enigma: ",
        document_pruning=Pruning(max_active_dims=8),
        special_terms="drop",
    )
    document = "Alan Turing broke the cipher of the machine. " * 3 + "Enigma."
    explanation = encoder.explain("enigma question", document)
    assert explanation.document_terms == 8
    assert {t.token for t in explanation.terms}.isdisjoint(encoder.tokenizer.all_special_tokens)
    enigma = next(term for term in explanation.terms if term.token == "enigma")
    assert not enigma.in_document  # the word is only in the prompt and after the cut at max_length
    assert enigma.document_place.start is None
    assert explanation.document == document
    rows = encoder.encode_queries(["enigma question"]), encoder.encode_documents([document])
    assert explanation.score == pytest.approx(float((rows[0] @ rows[1].T).toarray()[0, 0]), abs=1e-5)


def test_places_in_the_windows_of_a_long_document(model_folder):
    encoder = SpladeEncoder(model_folder, max_length=16, long_documents="max", max_windows=3)
    document = "rivers and lakes of the north " * 4 + "where the enigma machine was broken"
    explanation = encoder.explain("enigma rivers", document)
    score = (encoder.encode_queries(["enigma rivers"]) @ encoder.encode_documents([document]).T).toarray()[0, 0]
    assert explanation.score == pytest.approx(score, abs=1e-5)
    places = {term.label: term.document_place for term in explanation.terms}
    assert places["enigma"].word == "enigma"
    assert document[places["enigma"].start : places["enigma"].end] == "enigma"
    assert places["enigma"].token_index >= 2 * 16
    assert places["rivers"].word == "rivers"


def test_sum_pooling_gives_the_largest_share(model_folder):
    encoder = SpladeEncoder(model_folder, pooling_strategy="sum")
    terms = encoder.explain("wild yeast", "wild yeast, wild bread").terms
    wild = next(term for term in terms if term.token == "wild")
    assert 0.2 < wild.document_place.share < 0.9
    assert wild.document_place.word == "wild"


@pytest.mark.parametrize("architecture", ["roberta", "modernbert", "distilbert"])
def test_other_architectures(tmp_path, architecture):
    save_masked_lm(tmp_path, architecture)
    encoder = SpladeEncoder(str(tmp_path))
    explanation = encoder.explain("the quick fox", "the lazy dog and the quick fox")
    rows = encoder.encode_queries(["the quick fox"]), encoder.encode_documents(["the lazy dog and the quick fox"])
    assert explanation.score == pytest.approx(float((rows[0] @ rows[1].T).toarray()[0, 0]), rel=1e-5)
    for start, end, _, _ in highlights(explanation):
        assert explanation.document[start:end].strip() == explanation.document[start:end]


def test_other_input(encoder):
    with pytest.raises(TypeError, match="query must be a str, got list"):
        encoder.explain(["a"], "b")
    with pytest.raises(TypeError, match="document must be a str, got NoneType"):
        encoder.explain("a", None)


class TestRendering:
    @pytest.fixture
    def explanation(self, encoder):
        return encoder.explain(QUERIES[1], DOCUMENTS[1] + " <script>alert(1)</script>")

    def test_html_escapes_and_shows_each_term(self, explanation):
        html = explanation._repr_html_()
        assert "<script" not in html
        assert "&lt;" in html
        for term in explanation.terms[:10]:
            assert f"<b>{term.label}</b>" in html
        assert html.count("<span") == len(highlights(explanation)) + len(highlights(explanation, query=True))

    @pytest.mark.parametrize("width", [80, 120])
    def test_terminal(self, explanation, width):
        from rich.console import Console

        console = Console(width=width, record=True, file=io.StringIO())
        console.print(explanation)
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        for term in explanation.terms[:10]:
            assert any(f"{term.contribution:.2f}" in line and term.label.split()[0] in line for line in lines)
        assert any("█" in line for line in lines)
        assert any("░" in line for line in lines)

    def test_a_long_document_is_cut_around_its_heaviest_word(self, encoder):
        from rich.console import Console

        document = "Nothing of note happened here at all. " * 20 + "Enigma was broken." + " Later, nothing either." * 20
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(encoder.explain("enigma", document))
        shown = console.export_text()
        assert "Enigma was broken" in " ".join(shown.split())
        assert len(shown) < 3000

    def test_plot(self, explanation):
        import matplotlib

        matplotlib.use("agg")
        ax = explanation.plot(top_k=3)
        assert len(ax.patches) == 4
        total = sum(patch.get_width() for patch in ax.patches)
        assert total == pytest.approx(explanation.score, rel=1e-6)
        assert ax.get_xlabel().startswith("contribution to the score")

    def test_nothing_shared(self, encoder):
        explanation = SpladeEncoder(encoder.model_name, query_pruning=Pruning(max_active_dims=1)).explain("cat", "dog")
        if not explanation.terms:
            assert explanation.score == 0
        assert "Score" in explanation._repr_html_()
        json.dumps(explanation.to_dict())


class TestStoredRows:
    def test_they_are_explained_as_the_encoders_own(self, encoder):
        rows = encoder.encode_documents(DOCUMENTS)
        for query in QUERIES:
            stored = encoder.explain_stored(query, DOCUMENTS, rows)
            for one, document in zip(stored, DOCUMENTS, strict=True):
                whole = encoder.explain(query, document)
                assert one.score == pytest.approx(whole.score, abs=1e-4)
                assert [term.token_id for term in one.terms] == [term.token_id for term in whole.terms]
                for term, own in zip(one.terms, whole.terms, strict=True):
                    assert (term.label, term.in_document, term.query_place) == (
                        own.label,
                        own.in_document,
                        own.query_place,
                    )
                    assert (term.document_place is None) == (not term.in_document)
                    if term.document_place is not None and term.document_place.word_start is not None:
                        place = term.document_place
                        assert document[place.word_start : place.word_end] == place.word
                names_a_word = all(term.in_document for term in one.terms)
                assert ("the word in the last column" in one._repr_html_()) == names_a_word
                assert "the word in the last column" in whole._repr_html_()
                json.dumps(one.to_dict())
                str(highlights(one))

    def test_the_model_runs_on_the_query_alone(self, encoder, monkeypatch):
        rows = encoder.encode_documents(DOCUMENTS)
        seen = []
        run = type(encoder._roles["query"].rows).encode
        monkeypatch.setattr(
            type(encoder._roles["query"].rows),
            "encode",
            lambda self, ids, progress: seen.append(len(ids)) or run(self, ids, progress),
        )
        encoder.explain_stored("who cracked enigma", DOCUMENTS, rows)
        assert sum(seen) == 1

    def test_one_row_for_each_document(self, encoder):
        with pytest.raises(ValueError, match="rows must have one row for each of 2 documents, got 1"):
            encoder.explain_stored("cat", ["a", "b"], encoder.encode_documents(["a"]))
