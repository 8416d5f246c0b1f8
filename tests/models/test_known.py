"""Facts that the files of OpenSearch's repositories do not state: its pruning, and how it treats special tokens."""

import shutil

import numpy as np
import pytest
from sentence_transformers import SparseEncoder

from splade_integrations import Pruning, SpladeEncoder
from splade_integrations.models.known import KNOWN, known
from splade_integrations.models.repository import Repository
from tests.models.test_layouts import TOLERANCE, save_as_version_5
from tests.support.layouts import inference_free, symmetric

OPENSEARCH = "opensearch-neural-sparse-encoding"


def opensearch_rows(oracle: np.ndarray, special_ids: list[int], max_ratio: float) -> np.ndarray:
    """Return the rows that OpenSearch would store, made from rows of sentence-transformers."""
    rows = oracle.copy()
    rows[:, special_ids] = 0
    rows[rows < np.float32(max_ratio) * rows.max(axis=1, keepdims=True)] = 0
    return rows


@pytest.fixture
def v3(plain, tmp_path):
    """Return the folder of a v3 model, as sentence-transformers 5 saved it and OpenSearch published it."""
    inference_free(plain, "distilbert").save_pretrained(str(tmp_path / "saved"))
    folder = tmp_path / f"{OPENSEARCH}-doc-v3-distill"
    save_as_version_5(folder, tmp_path / "saved")
    return folder


def test_v3_prunes_documents_by_their_largest_weight(v3, odd_texts, tmp_path):
    oracle = SparseEncoder(str(tmp_path / "saved")).encode_document(odd_texts, convert_to_sparse_tensor=False).numpy()
    encoder = SpladeEncoder(v3)
    assert "document_pruning=terms with at least 0.1 of the largest weight" in repr(encoder)
    kept = encoder.encode_documents(odd_texts).toarray()
    expected = opensearch_rows(oracle, encoder.tokenizer.all_special_ids, 0.1)
    # A weight that is about as large as the pruning limit may be kept or dropped.
    largest = expected.max(axis=1, keepdims=True)
    sure = np.abs(oracle - 0.1 * largest) > TOLERANCE
    np.testing.assert_allclose(kept[sure], expected[sure], atol=TOLERANCE)
    assert np.count_nonzero(kept) < 0.99 * np.count_nonzero(oracle)
    assert encoder.fingerprint.document_pruning == Pruning(max_ratio=0.1)
    whole = SpladeEncoder(v3, document_pruning=Pruning())
    assert whole.encode_documents(odd_texts).nnz > np.count_nonzero(kept)
    assert whole.fingerprint.differences(encoder.fingerprint) == ["document_max_ratio"]
    np.testing.assert_array_equal(  # OpenSearch prunes documents only
        whole.encode_queries(odd_texts).toarray(), encoder.encode_queries(odd_texts).toarray()
    )


def test_only_v3_prunes(plain, tmp_path):
    for name, pruning in ((f"{OPENSEARCH}-v1", Pruning()), (f"{OPENSEARCH}-doc-v3-gte", Pruning(max_ratio=0.1))):
        symmetric(plain, "bert").save_pretrained(str(tmp_path / name))
        assert SpladeEncoder(tmp_path / name).spec.document_pruning == pruning


@pytest.mark.parametrize("layout", ["root", "5", "6"])
@pytest.mark.parametrize("name", [f"{OPENSEARCH}-v1", f"{OPENSEARCH}-v2-distill"])
def test_special_tokens_of_models_with_one_encoder(plain, odd_texts, tmp_path, layout, name):
    """Each revision of the repository returns OpenSearch's rows. sentence-transformers also keeps special terms."""
    texts, saved = odd_texts[-30:], tmp_path / "saved"
    symmetric(plain, "bert").save_pretrained(str(saved))
    if layout == "root":
        shutil.copytree(plain("bert"), tmp_path / name)
    elif layout == "5":
        save_as_version_5(tmp_path / name, saved)
    else:
        shutil.copytree(saved, tmp_path / name)
    oracle, encoder = SparseEncoder(str(saved)), SpladeEncoder(tmp_path / name)
    special_ids = encoder.tokenizer.all_special_ids
    for ours, theirs in (
        (encoder.encode_documents, oracle.encode_document),
        (encoder.encode_queries, oracle.encode_query),
    ):
        whole = theirs(texts, convert_to_sparse_tensor=False).numpy()
        assert whole[:, special_ids].any()
        np.testing.assert_allclose(ours(texts).toarray(), opensearch_rows(whole, special_ids, 0), atol=TOLERANCE)
    as_before = SpladeEncoder(tmp_path / name, special_terms="keep").encode_queries(texts)
    np.testing.assert_allclose(as_before.toarray(), whole, atol=TOLERANCE)


@pytest.mark.parametrize("version", ["5", "6"])
@pytest.mark.parametrize("sign", ["name", "file", "neither"])
def test_special_tokens_of_models_with_inference_free_queries(plain, odd_texts, tmp_path, version, sign):
    """The repository is recognised by its name, or by a file that only OpenSearch publishes."""
    inference_free(plain, "distilbert").save_pretrained(str(tmp_path / "6"))
    save_as_version_5(tmp_path / "5", tmp_path / "6")
    folder = (tmp_path / version).rename(tmp_path / (f"{OPENSEARCH}-doc-v2-mini" if sign == "name" else "model"))
    if sign == "file":
        (folder / "query_token_weights.txt").write_text("a\t1.0\n")
    encoder = SpladeEncoder(folder)
    documents, queries = encoder.encode_documents(odd_texts[-30:]), encoder.encode_queries(["[SEP] a b"])
    special = documents[:, encoder.tokenizer.all_special_ids].nnz + queries[:, encoder.tokenizer.all_special_ids].nnz
    assert (special == 0) == (sign != "neither")
    assert documents.nnz > 0


def test_a_folder_of_the_cache_is_known(tmp_path):
    for folder, fact in {
        f"models--opensearch-project--{OPENSEARCH}-v1/snapshots/0123": KNOWN[f"opensearch-project/{OPENSEARCH}-v1"],
        f"models--org--{OPENSEARCH}-v1/snapshots/0123": None,
    }.items():
        (tmp_path / folder).mkdir(parents=True)
        assert known(Repository(str(tmp_path / folder))) == fact
