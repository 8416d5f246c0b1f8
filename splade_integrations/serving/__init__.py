"""A server that encodes texts over HTTP, and a client that encodes with such a server instead of a model.

The routes and the JSON are those of Hugging Face's Text Embeddings Inference (TEI) for sparse models. Importing this
module loads neither torch nor a web framework.
"""
