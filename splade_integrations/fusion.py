"""Fuses the hits of several sides into one ranking, by rank or by score.

A side is one of the kinds of vectors that a search uses, such as "dense". Milvus itself can fuse by reciprocal rank.
For the fusions that Milvus cannot compute, this package's stores use this module. `splade evaluate --fit` also uses
this module, so its measurements hold for the stores as well. This module needs only numpy.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["METHODS", "RRF_K", "Fusion", "Hits", "Method", "contributions", "ordered"]

RRF_K = 60  # reciprocal rank fusion: each ranking adds 1 / (RRF_K + rank). Source: Cormack et al., SIGIR 2009

Method = Literal["rrf", "scores"]
METHODS: tuple[Method, ...] = ("rrf", "scores")

# The hits of one side, best first: the keys of the documents, which are all int or all str, and their scores.
Hits: TypeAlias = tuple[Sequence[Any], Sequence[float]]

# Fused scores are rounded to this number of decimals. So scores that differ only by floating-point error become equal.
# Real differences are not lost: even for the deepest search that Milvus allows, the smallest difference between two
# reciprocal ranks is far larger than the rounding.
_DECIMALS = 12


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """The sides of a search, and how their hits become one ranking.

    - "rrf", reciprocal rank fusion, looks only at ranks: each side adds weight / (k + rank) to a document's score.
    - "scores" looks at scores. For each query, the scores of a side are scaled: the side's best hit gets 1, and its
      last hit gets 0. Then each side adds weight * scaled score to a document's score. If a side did not find a
      document, it adds 0.

    Documents with equal scores are sorted by their keys. `splade evaluate --fit` finds the best fusion for a
    collection.

    Args:
        sides: The names of the sides, such as ("dense", "sparse", "bm25"). With only one side, nothing is fused.
        method: "rrf" or "scores".
        weights: One weight for each side, in the order of the sides. None means equal weights.
        k: The constant of "rrf". If k is larger, the first ranks have less advantage over later ranks. "scores" does
            not use k.
        depth: The number of hits of each side that are fused. None leaves the choice to the search.
    Raises:
        TypeError, ValueError: An argument is wrong. The message names the argument.
    Source:
        Cormack et al., Reciprocal Rank Fusion outperforms Condorcet, SIGIR 2009. Bruch et al., An Analysis of Fusion
        Functions for Hybrid Retrieval, TOIS 2023, compares both methods.

    Example:
        >>> dense, bm25 = (["a", "b"], [0.9, 0.8]), (["b", "c"], [7.0, 2.0])
        >>> Fusion(sides=("dense", "bm25")).fuse([dense, bm25])[0]
        ['b', 'a', 'c']
        >>> Fusion(sides=("dense", "bm25"), method="scores", weights=(0.7, 0.3)).fuse([dense, bm25])
        (['a', 'b', 'c'], [0.7, 0.3, 0.0])
    """

    sides: tuple[str, ...]
    method: Method = "rrf"
    weights: tuple[float, ...] | None = None
    k: float = RRF_K
    depth: int | None = None

    def __post_init__(self) -> None:
        for name in ("sides", "weights"):
            value = getattr(self, name)
            if not isinstance(value, Iterable) or isinstance(value, str | Mapping):
                if name == "weights" and value is None:
                    continue
                raise TypeError(
                    f"{name} must be a list with one item for each side, got {type(value).__name__} {value!r}. Give "
                    "sides=('dense', 'bm25'), weights=(0.6, 0.4), for example."
                )
            object.__setattr__(self, name, tuple(value))
        if not self.sides or len(set(self.sides)) < len(self.sides):
            raise ValueError(f"sides must be one or more different sides, got {self.sides!r}. Name each side once.")
        if self.method not in METHODS:
            raise ValueError(f"method must be 'rrf' or 'scores', got {self.method!r}. Use one of them.")
        if not _is_number(self.k) or self.k <= 0:
            raise ValueError(f"k must be a number above 0, got {self.k!r}. Leave it out to use {RRF_K}.")
        depth = self.depth
        if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 1):
            raise ValueError(f"depth must be an int of at least 1, got {self.depth!r}. Leave it out for the default.")
        if self.weights is None:
            return
        right = all(_is_number(weight) and weight >= 0 for weight in self.weights) and any(self.weights)
        if not right or len(self.weights) != len(self.sides):
            raise ValueError(
                f"weights must be one number for each side ({', '.join(self.sides)}), each at least 0 and one or more "
                f"above 0, got {self.weights!r}. Leave weights out for equal weights."
            )
        # The weights become plain Python numbers, because JSON cannot hold NumPy's numbers.
        object.__setattr__(self, "weights", tuple(map(float, self.weights)))

    @property
    def plain(self) -> bool:
        """Whether this is reciprocal rank fusion with equal weights, which Milvus itself can compute."""
        return self.method == "rrf" and len(set(self.weights or (1,))) == 1

    def fuse(self, rankings: Sequence[Hits]) -> tuple[list[Any], list[float]]:
        """Fuse one query's hits. Returns the keys, best first, and their scores.

        Args:
            rankings: One ranking for each side, in the order of the sides. A side without hits has ([], []).
        """
        keys, parts = contributions(rankings, self.method, self.k)
        return ordered(keys, parts @ np.asarray(self.weights or [1.0] * len(self.sides), np.float64))

    def to_dict(self) -> dict[str, Any]:
        """Return the fusion as plain data for JSON."""
        plain: dict[str, Any] = {"sides": list(self.sides), "method": self.method}
        plain |= {} if self.weights is None else {"weights": list(self.weights)}
        plain |= {"k": self.k} if self.method == "rrf" else {}
        return plain | ({} if self.depth is None else {"depth": self.depth})

    @staticmethod
    def of(value: "Fusion | Mapping[str, Any] | None") -> "Fusion | None":
        """Return the `Fusion` that a caller passed as a `Fusion` or as a dict. None stays None.

        Raises:
            TypeError: The value is something else.
            ValueError: The dict does not describe a fusion.
        """
        if value is None or isinstance(value, Fusion):
            return value
        if isinstance(value, Mapping):
            return Fusion.from_dict(value)
        raise TypeError(
            f"fusion must be a Fusion or a dict, got {type(value).__name__}. Give Fusion(sides=('dense', 'sparse'), "
            "method='scores', weights=(0.6, 0.4)), for example."
        )

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Fusion":
        """Return the fusion that a dict describes. The dict has the form that `to_dict` returns.

        Raises:
            ValueError: A key is unknown or missing, or a value is wrong.
        """
        known = {"sides", "method", "weights", "k", "depth"}
        if "sides" not in plain or plain.keys() - known:
            raise ValueError(
                f"a fusion must have the key sides, and may have {', '.join(sorted(known - {'sides'}))}, got the keys "
                f"{', '.join(map(repr, plain)) or 'none'}. Make the dict with Fusion.to_dict."
            )
        return Fusion(**plain)

    def __str__(self) -> str:
        names = [
            side if self.weights is None else f"{weight:.3g} {side}"
            for side, weight in zip(self.sides, self.weights or self.sides, strict=True)
        ]
        how = "" if len(self.sides) == 1 else ", by rank" if self.method == "rrf" else ", by scaled score"
        return " + ".join(names) + how


def contributions(
    rankings: Sequence[Hits], method: Method, k: float = RRF_K
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return what each side adds to each document's score, before the weights are applied.

    Args:
        rankings: One query's hits for each of S sides, best first.
        method: "rrf" or "scores".
        k: The constant of "rrf".
    Returns:
        Two arrays. The first, (n,), has the keys of all n documents that at least one side found, in ascending order.
        The second, (n, S), has the number that each side adds to the score of each document.
    """
    found = [np.asarray(keys) for keys, _ in rankings if len(keys)]
    documents = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    parts = np.zeros((len(documents), len(rankings)))
    for column, (keys, scores) in enumerate(rankings):
        if len(keys):
            places = np.searchsorted(documents, np.asarray(keys))
            parts[places, column] = 1 / (k + np.arange(1, len(keys) + 1)) if method == "rrf" else _scaled(scores)
    return documents, parts


def ordered(keys: NDArray[Any], scores: NDArray[np.float64], depth: int | None = None) -> tuple[list[Any], list[float]]:
    """Return the keys and scores, highest score first. Documents with equal scores keep their order.

    If `depth` is given, at most this number of documents is returned.
    """
    rounded = np.round(scores, _DECIMALS)
    order = np.argsort(-rounded, kind="stable")[:depth]
    return keys[order].tolist(), rounded[order].tolist()


def _scaled(scores: Sequence[float]) -> NDArray[np.float64]:
    """Scale one side's scores. The best score becomes 1, and the worst becomes 0. If all are equal, each becomes 1.

    The scores must be sorted, with the best score first. The best score may be the largest one or the smallest one. For
    distances and for milvus-lite's BM25 scores, it is the smallest one.
    """
    values = np.asarray(scores, np.float64)
    spread = values[0] - values[-1]
    scaled: NDArray[np.float64] = (values - values[-1]) / spread if spread else np.ones(len(values))
    return scaled


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
