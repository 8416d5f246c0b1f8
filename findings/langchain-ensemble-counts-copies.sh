#!/usr/bin/env bash
# LangChain's EnsembleRetriever treats documents of equal text as one document, but adds
# 1 / (rank + 60) for every copy in a list. So a repeated text at ranks 2 and 3
# beats the document that every retriever ranks first.
# This affects hybrid retrieval over chunked files, in which footers, licence texts and headings repeat.
# If id_key is set to a metadata key that is unique, the order is as expected.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet langchain-classic==1.0.8 langchain-core==1.8.3 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from langchain_classic.retrievers import EnsembleRetriever
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever


class Ranking(BaseRetriever):
    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.documents


def chunk(key, text):
    return Document(id=key, page_content=text, metadata={"key": key})


ranking = [
    chunk("answer", "Pull the red lever to reset the pump."),
    chunk("footer of page 3", "Keep this manual with the pump."),
    chunk("footer of page 7", "Keep this manual with the pump."),
]
retrievers = [Ranking(documents=ranking), Ranking(documents=ranking)]
by_text = [document.id for document in EnsembleRetriever(retrievers=retrievers).invoke("reset")]
by_key = [document.id for document in EnsembleRetriever(retrievers=retrievers, id_key="key").invoke("reset")]
print("langchain-classic", version("langchain-classic"), "langchain-core", version("langchain-core"))
print("Seen: both retrievers rank the answer first, and the fused list ranks it last.")
print("Expected: reciprocal rank fusion adds one share for each list that holds a document. The documentation says")
print("  that documents are told apart by page_content if id_key is not given. So two copies in a list are one")
print("  document, and should get one share, for the better rank.")
print("Each retriever:       ", [document.id for document in ranking])
print("Fused, default:       ", by_text)
print("Fused, id_key='key':  ", by_key)
as_described = by_text == ["footer of page 3", "answer"] and by_key[0] == "answer"
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
