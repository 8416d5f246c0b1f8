#!/usr/bin/env bash
# LangChain's Milvus store fuses the results of a hybrid search in two ways. The synchronous method uses
# WeightedRanker(1, 1), and the asynchronous method uses reciprocal rank fusion.
# So for the same query, the two methods return hits in different orders, with scores on different scales
# (up to 2, and up to .03).
# This affects users who test with similarity_search() and serve with asimilarity_search(),
# and users who choose a score threshold with one method and apply it to the other.
# Nothing in the results shows which fusion was used.
# With ranker_type="rrf" in both calls, the methods agree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet langchain-milvus==0.4.0 langchain-core==1.8.3 pymilvus==3.0.2 milvus-lite==3.2.2 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import asyncio
import math
import sys
from importlib.metadata import version

from langchain_core.embeddings import Embeddings
from langchain_milvus import Milvus
from langchain_milvus.utils.sparse import BaseSparseEmbedding

COSINE = {"query": 1.0, "first by dense": 1.0, "good in both": 0.9, "first by sparse": 0.2}
TERM_WEIGHT = {"query": 1.0, "first by dense": 0.1, "good in both": 5.0, "first by sparse": 6.0}


class Dense(Embeddings):
    def embed_query(self, text):
        return [COSINE[text], math.sqrt(1 - COSINE[text] ** 2)]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


class Sparse(BaseSparseEmbedding):
    def embed_query(self, query):
        return {7: TERM_WEIGHT[query]}

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


async def both_answers():
    store = Milvus(
        embedding_function=[Dense(), Sparse()],
        vector_field=["dense", "sparse"],
        index_params=[
            {"index_type": "FLAT", "metric_type": "COSINE"},
            {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
        ],
        search_params=[{"metric_type": "COSINE"}, {"metric_type": "IP"}],
        connection_args={"uri": "store.db"},
        auto_id=True,
    )
    store.add_texts(["first by dense", "good in both", "first by sparse"])
    plain = store.similarity_search_with_score("query", k=3)
    awaited = await store.asimilarity_search_with_score("query", k=3)
    await store.aclient.close()
    store.client.close()
    return [[(document.page_content, round(score, 5)) for document, score in found] for found in (plain, awaited)]


plain, awaited = asyncio.run(both_answers())
print("langchain-milvus", version("langchain-milvus"), "pymilvus", version("pymilvus"))
print("Seen: with the defaults, the two methods rank the results of one hybrid query differently.")
print("Expected: asimilarity_search_with_score() is the asynchronous form of similarity_search_with_score(),")
print("  so both should give the same documents in the same order with the same scores.")
print("similarity_search_with_score: ", plain)
print("asimilarity_search_with_score:", awaited)
as_described = plain[0][0] == awaited[-1][0] == "good in both" and plain[0][1] > 1 > 0.1 > awaited[0][1]
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
