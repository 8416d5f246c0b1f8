"""Numbers that every Milvus collection of ours is made and searched with. Needs no pymilvus."""

__all__ = ["MAX_TEXT_BYTES", "MOST_CANDIDATES", "RRF_K"]

RRF_K = 60  # of reciprocal rank fusion: each ranking adds 1 / (RRF_K + rank); 60 as in Cormack et al., SIGIR 2009
MOST_CANDIDATES = 16_384  # hits of one search; a Milvus server refuses more
MAX_TEXT_BYTES = 65_535  # bytes of UTF-8 that the frameworks' text fields hold: the most of a Milvus VARCHAR
