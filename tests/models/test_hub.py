"""Published scores of hub models. If no hub can be reached, these tests are skipped."""

import os

import pytest

from splade_integrations import Pruning, SpladeEncoder
from splade_integrations.milvus import SpladeEmbeddingFunction
from splade_integrations.options import EncoderOptions

pytestmark = pytest.mark.hub

# The scores and their texts are from the tests of sentence-transformers:
# github.com/huggingface/sentence-transformers, tests/sparse_encoder/test_pretrained.py (commit 2db6390, Apache-2.0).
# CSR models are left out, because they are not SPLADE.
QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
OPENSEARCH = "opensearch-project/opensearch-neural-sparse-encoding"
SCORES = {
    "CATIE-AQ/SPLADE_camembert-base_STS": [0.51461, 0.44732, 0.35746, 0.29244],
    "CATIE-AQ/SPLADE_camemberta2.0_STS": [0.5243, 0.61159, 0.53372, 0.47433],
    "NeuML/pubmedbert-base-splade": [0.27906, 0.62092, 0.47355, 0.45589],
    "ibm-granite/granite-embedding-30m-sparse": [6.04771, 16.77029, 10.85245, 10.59154],
    "naver/efficient-splade-V-large-doc": [4.91852, 13.95462, 11.87605, 12.65839],
    "naver/efficient-splade-V-large-query": [4.91852, 13.95462, 11.87605, 12.65839],
    "naver/efficient-splade-VI-BT-large-doc": [4.89399, 13.49699, 11.25572, 12.38231],
    "naver/splade-cocondenser-ensembledistil": [8.3984, 22.53437, 17.49611, 17.43306],
    "naver/splade-cocondenser-selfdistil": [7.46435, 19.78329, 17.04635, 18.57447],
    "naver/splade-v3": [12.14491, 26.104, 22.00245, 23.3877],
    "naver/splade-v3-distilbert": [14.09051, 26.74469, 20.17685, 21.46064],
    "naver/splade-v3-doc": [2.59649, 5.20825, 3.98631, 4.80111],
    "naver/splade-v3-lexical": [2.72184, 5.90968, 5.28795, 5.69247],
    "naver/splade_v2_distil": [10.31571, 27.80097, 21.33898, 24.31745],
    "naver/splade_v2_max": [9.8665, 21.85902, 15.46679, 19.21293],
    "nickprock/splade-bert-base-italian-xxl-uncased-cv": [8.93991, 12.32588, 6.85424, 11.53487],
    f"{OPENSEARCH}-doc-v1": [5.60338, 15.5549, 11.63231, 14.3729],
    f"{OPENSEARCH}-doc-v2-distill": [8.87648, 21.10651, 16.59742, 18.52468],
    f"{OPENSEARCH}-doc-v2-mini": [5.63165, 14.10177, 12.41127, 13.27736],
    f"{OPENSEARCH}-doc-v3-distill": [5.40216, 11.59338, 9.66898, 10.57229],
    f"{OPENSEARCH}-doc-v3-gte": [6.5672, 14.57547, 10.91119, 12.51505],
    f"{OPENSEARCH}-multilingual-v1": [4.70941, 12.14164, 9.9167, 10.65915],
    f"{OPENSEARCH}-v1": [7.81391, 20.89011, 17.19859, 18.00109],
    f"{OPENSEARCH}-v2-distill": [11.66555, 39.72486, 31.46797, 29.06855],
    "prithivida/Splade_PP_en_v1": [7.53973, 21.1464, 15.389, 16.90205],
    "prithivida/Splade_PP_en_v2": [6.62724, 19.52456, 16.87119, 16.45899],
    "rasyosef/SPLADE-RoBERTa-Amharic-Medium": [3.59452, 3.55411, 1.13841, 4.14062],
    "rasyosef/splade-mini": [5.89081, 17.4685, 13.97732, 16.45229],
    "rasyosef/splade-tiny": [4.99237, 18.62739, 12.62022, 13.89826],
    "sparse-encoder-testing/splade-bert-tiny-nq": [137.20848, 152.30518, 151.26659, 152.64423],
    "sparse-encoder/splade-camembert-base-v2": [8.58515, 18.15598, 10.564, 18.45705],
    "sparse-encoder/splade-robbert-dutch-base-v1": [1.85174, 15.94728, 6.88332, 9.34534],
    "telepix/PIXIE-Splade-Preview": [2.65884, 11.46005, 4.92347, 9.00645],
    "telepix/PIXIE-Splade-v1.0": [10.2899, 37.16295, 25.01773, 26.30672],
    "thierrydamiba/splade-ecommerce-multidomain": [73.12199, 83.1591, 78.17178, 76.7075],
    "thivy/norbert4-base-splade-retrieval": [18.17628, 46.48474, 36.90033, 35.92578],
    "tomaarsen/splade-modernbert-base-miriad": [1.09753, 5.8977, 6.20096, 5.68861],
    "yjoonjang/splade-ko-v1": [22.02576, 69.67833, 52.54121, 62.20011],
}
REMOTE_CODE = {f"{OPENSEARCH}-doc-v3-gte", "thivy/norbert4-base-splade-retrieval", "CATIE-AQ/SPLADE_camemberta2.0_STS"}


@pytest.fixture(scope="module", autouse=True)
def hub():
    from huggingface_hub import HfApi

    if os.environ.get("HF_HUB_OFFLINE") == "1":
        pytest.skip("HF_HUB_OFFLINE is set")
    try:
        HfApi().model_info("prithivida/Splade_PP_en_v2", timeout=5)
    except Exception as err:
        pytest.skip(f"no model hub is reachable ({type(err).__name__})")


@pytest.mark.parametrize("name", SCORES)
def test_published_scores(name):
    # Checkpoints in bfloat16 are loaded as float32, as they were for the published scores.
    # For OpenSearch's models, sentence-transformers keeps the terms of special tokens, and does not prune.
    as_published: EncoderOptions = {"special_terms": "keep", "document_pruning": Pruning()}
    options = as_published if name.startswith(OPENSEARCH) else {}
    encoder = SpladeEncoder(name, dtype="float32", device="cpu", trust_remote_code=name in REMOTE_CODE, **options)
    scores = encoder.encode_queries([QUERY]) @ encoder.encode_documents(DOCUMENTS).T
    assert scores.toarray()[0].tolist() == pytest.approx(SCORES[name], abs=0.01)


def test_weights_of_the_milvus_page():
    """The weights are those in Milvus's docs, embed-with-splade.md.

    The code on that page uses no padding mask, but this makes no difference to the weights of this model.
    """
    splade_ef = SpladeEmbeddingFunction("naver/splade-cocondenser-selfdistil", device="cpu")
    documents = splade_ef.encode_documents(
        [
            "Artificial intelligence was founded as an academic discipline in 1956.",
            "Alan Turing was the first person to conduct substantial research in AI.",
            "Born in Maida Vale, London, Turing was raised in southern England.",
        ]
    )
    queries = splade_ef.encode_queries(["When was artificial intelligence founded", "Where was Alan Turing born?"])
    expected = {(0, 2001): 0.6392706, (0, 2034): 0.0240932, (0, 2082): 0.3230178, (2, 23602): 0.5671860}
    expected |= {(2, 26757): 0.5770265, (2, 28639): 3.1990697}
    assert {cell: documents[cell] for cell in expected} == pytest.approx(expected, abs=1e-3)
    expected = {(0, 2001): 0.6353746, (0, 2194): 0.0155533, (0, 2301): 0.2756537, (1, 18522): 0.1282549}
    expected |= {(1, 23602): 0.1313320, (1, 28639): 2.8150033}
    assert {cell: queries[cell] for cell in expected} == pytest.approx(expected, abs=1e-3)


def test_bge_m3_of_its_model_card():
    """The model card computes in float16, and prints the weights of the first text's tokens and one lexical score."""
    encoder = SpladeEncoder("BAAI/bge-m3", device="cpu")
    first = encoder.encode_documents(["What is BGE M3?"])
    text = "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction."
    assert sorted(first.data.tolist()) == pytest.approx(
        [0.04092, 0.0814, 0.08356, 0.1296, 0.1702, 0.252, 0.2695], abs=1e-3
    )
    assert (first @ encoder.encode_documents([text]).T).toarray()[0, 0] == pytest.approx(0.19555, abs=1e-3)


def test_splade_code_of_its_model_card():
    """The model card computes in bfloat16, and prints the ten heaviest terms of a query and the number of its terms."""
    encoder = SpladeEncoder("naver/splade-code-06B", device="cpu", dtype="bfloat16")
    query = (
        "SELECT *\nFROM Student\nWHERE Age = (\nSELECT MAX(Age)\nFROM Student\nWHERE Group = 'specific_group'\n)\n"
        "AND Group = 'specific_group';"
    )
    row = encoder.encode_queries([query])
    assert row.nnz == pytest.approx(1231, rel=0.05)
    heaviest = encoder.decode(row, top_k=10)[0]
    expected = [2.34375] * 3 + [2.296875] * 3 + [2.21875] * 2 + [2.203125, 2.1875]
    assert [weight for _, weight in heaviest] == pytest.approx(expected, abs=0.03)
    assert {"Ġgroup", "Ġage", "ĠAge", "ĠStudent"} <= {token for token, _ in heaviest}
