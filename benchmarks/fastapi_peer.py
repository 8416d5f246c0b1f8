"""A FastAPI application around sentence-transformers, as a user would write it. `benchmarks.serving` measures it.

MODEL in the environment names the model. Run it with: uvicorn benchmarks.fastapi_peer:app.
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SparseEncoder

__all__ = ["app"]

app = FastAPI()
_model = SparseEncoder(os.environ["MODEL"], device="cpu")


class _Request(BaseModel):
    inputs: str | list[str]
    prompt_name: str | None = None
    truncate: bool = False


@app.post("/embed_sparse")
def embed_sparse(request: _Request) -> list[list[dict[str, Any]]]:
    """Return the rows of one or more queries. FastAPI calls this in a thread, because it is no coroutine."""
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    rows = []
    for row in _model.encode_query(texts):
        row = row.coalesce()
        terms, weights = row.indices()[0].tolist(), row.values().tolist()
        rows.append([{"index": term, "value": weight} for term, weight in zip(terms, weights, strict=True)])
    return rows


@app.get("/health")
def health() -> None:
    """Say that the application runs."""
