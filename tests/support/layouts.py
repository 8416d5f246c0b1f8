"""Makes the layouts of models that sentence-transformers can write, around small random checkpoints."""

import json

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import Router, SparseStaticEmbedding, SpladePooling
from sentence_transformers.sparse_encoder.modules import Transformer as MLMTransformer

__all__ = ["LAYOUTS", "idf_weights", "inference_free", "prompted", "symmetric"]


def transformer(folder) -> MLMTransformer:
    return MLMTransformer(str(folder), transformer_task="fill-mask")


def idf_weights(folder) -> torch.Tensor:
    """Return a weight for each token of the vocabulary. Some weights are 0."""
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    weights = torch.rand(size, generator=torch.Generator().manual_seed(3)) * 6
    weights[torch.arange(0, size, 7)] = 0
    return weights


def symmetric(plain, architecture, **pooling):
    return SparseEncoder(modules=[transformer(plain(architecture)), SpladePooling(**pooling)])


def inference_free(plain, architecture, weights=None):
    document = transformer(plain(architecture))
    weights = idf_weights(plain(architecture)) if weights is None else weights
    query = SparseStaticEmbedding(document.tokenizer, weight=weights, frozen=True)
    router = Router.for_query_document(
        query_modules=[query], document_modules=[document, SpladePooling(activation_function="log1p_relu")]
    )
    return SparseEncoder(modules=[router])


def bag_of_words(plain, architecture):
    return inference_free(plain, architecture, torch.ones(len(idf_weights(plain(architecture)))))


def two_encoders(plain, architecture):
    query, document = transformer(plain(architecture, seed=8)), transformer(plain(architecture))
    router = Router.for_query_document(
        query_modules=[query, SpladePooling()], document_modules=[document, SpladePooling()]
    )
    return SparseEncoder(modules=[router])


def lexical(plain, architecture):
    document = transformer(plain(architecture))
    weights = torch.ones(len(idf_weights(plain(architecture))))
    own_tokens = SparseStaticEmbedding(document.tokenizer, weight=weights, frozen=True)
    router = Router.for_query_document(
        query_modules=[document, SpladePooling(), own_tokens], document_modules=[document, SpladePooling()]
    )
    return SparseEncoder(modules=[router])


def prompted(plain, architecture):
    return SparseEncoder(
        modules=[transformer(plain(architecture)), SpladePooling()],
        prompts={"query": "query: ", "document": "passage: "},
        max_active_dims=20,
    )


# {name: a function from (`plain`, architecture) to the model}. `plain` makes the folder of a masked-LM checkpoint.
LAYOUTS = {
    "max relu": symmetric,
    "sum relu": lambda plain, architecture: symmetric(plain, architecture, pooling_strategy="sum"),
    "max log1p_relu": lambda plain, architecture: symmetric(plain, architecture, activation_function="log1p_relu"),
    "inference-free": inference_free,
    "bag of words": bag_of_words,
    "two encoders": two_encoders,
    "lexical": lexical,
    "prompts, max_active_dims": prompted,
}
