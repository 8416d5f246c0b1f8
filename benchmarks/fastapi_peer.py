"""A FastAPI application around sentence-transformers, as a user would write it. `benchmarks.serving` measures it.

The environment variable MODEL names the model. This command starts the application:

    uvicorn --factory benchmarks.fastapi_peer:make
"""

import os
from typing import Any

__all__ = ["make"]


def make() -> Any:
    """Return the application, with the model loaded."""
    from fastapi import Body, FastAPI
    from sentence_transformers import SparseEncoder

    app = FastAPI()
    model = SparseEncoder(os.environ["MODEL"], device="cpu")

    def embed_sparse(inputs: str | list[str] = Body(embed=True)) -> list[list[dict[str, Any]]]:  # noqa: B008
        texts = [inputs] if isinstance(inputs, str) else inputs
        rows = []
        for row in model.encode_query(texts):
            row = row.coalesce()
            terms, weights = row.indices()[0].tolist(), row.values().tolist()
            rows.append([{"index": term, "value": weight} for term, weight in zip(terms, weights, strict=True)])
        return rows

    # FastAPI runs this function in a thread, because it is not a coroutine function.
    app.post("/embed_sparse")(embed_sparse)
    app.get("/health")(lambda: None)
    return app
