"""Turns texts into sparse rows of term weights, and explains which words a score comes from.

This package does not depend on Milvus, LangChain or LlamaIndex.
"""
