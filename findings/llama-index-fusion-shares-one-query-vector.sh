#!/usr/bin/env bash
# With use_async=False, LlamaIndex's QueryFusionRetriever gives the same QueryBundle to all its retrievers in turn.
# The first retriever writes its query embedding into the bundle. The second retriever then searches by that vector,
# although its index has another embedding model. With use_async=True, each retriever embeds the query itself.
# This affects fusion over two embedding models of equal dimension (different dimensions raise an error).
# The second retriever ranks by a vector from the wrong model, without a warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet llama-index-core==0.14.25 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode


class Model(BaseEmbedding):
    """An embedding with two possible vectors, one for texts about dogs and one for texts about cats."""

    dog: list[float]
    cat: list[float]

    def _get_text_embedding(self, text):
        return self.dog if "dog" in text else self.cat

    def _get_query_embedding(self, query):
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query):
        return self._get_text_embedding(query)


def retriever(model, word):
    nodes = [TextNode(id_=f"{word} about {pet}", text=f"{pet}, {word}") for pet in ("dog", "cat")]
    return VectorStoreIndex(nodes, embed_model=model).as_retriever(similarity_top_k=1)


retrievers = [
    retriever(Model(dog=[1.0, 0.0], cat=[0.0, 1.0]), "manual"),
    retriever(Model(dog=[0.0, 1.0], cat=[1.0, 0.0]), "letter"),
]
alone = [retriever.retrieve("dog")[0].node_id for retriever in retrievers]
fused = {}
for use_async in (True, False):
    fusion = QueryFusionRetriever(
        retrievers, num_queries=1, mode="simple", similarity_top_k=2, use_async=use_async, llm=MockLLM()
    )
    fused[use_async] = sorted(node.node_id for node in fusion.retrieve("dog"))
print("llama-index-core", version("llama-index-core"))
print("Seen: with use_async=False, the second retriever searches by the first retriever's query vector.")
print("Expected: use_async changes how the retrievers are called, not what they find. Each retriever should embed")
print("  the question with the model of its own index, as it does when called directly and with use_async=True.")
print("each retriever alone:", alone)
print("use_async=True:      ", fused[True])
print("use_async=False:     ", fused[False])
right = ["letter about dog", "manual about dog"]
as_described = sorted(alone) == fused[True] == right and fused[False] == ["letter about cat", "manual about dog"]
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
