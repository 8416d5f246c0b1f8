"""The numbers that `/metrics` shows to Prometheus.

The names are those of Text Embeddings Inference. The Python client of Prometheus adds `_total` to the names of
counters.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The numbers of one server.

    Attributes:
        requests: The number of requests for the rows (sparse vectors) of texts.
        succeeded: The number of requests that were answered with rows.
        failed: The number of refused requests, by the type of the error.
        texts: The number of texts whose rows were sent.
        seconds: The duration of each request that was answered with rows.
        waiting: The number of requests that are waiting or being encoded.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("te_request_count", "Requests for rows.", registry=registry)
        self.succeeded = Counter("te_request_success", "Requests answered with rows.", registry=registry)
        self.failed = Counter("te_request_failure", "Refused requests.", ["err"], registry=registry)
        self.texts = Counter("te_embed_count", "Texts whose rows were sent.", registry=registry)
        self.seconds = Histogram("te_request_duration", "Seconds of a request.", buckets=_SECONDS, registry=registry)
        self.waiting = Gauge("te_queue_size", "Requests that are waiting or being encoded.", registry=registry)

    def page(self) -> bytes:
        """Return all numbers in the text format of Prometheus."""
        return generate_latest(self._registry)
