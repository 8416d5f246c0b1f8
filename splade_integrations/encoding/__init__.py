"""Turns texts into rows of term weights, and explains which words a score comes from.

Nothing here depends on Milvus or on a framework.
"""
