"""Numbers for Prometheus: how many, how long, how full; no texts, nothing of a single person."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Telemetry:
    """The numbers of one server.

    Args:
        waiting: returns the number of requests that wait.
        active: returns the number of replies that grow.
    """

    def __init__(self, waiting: Callable[[], int], active: Callable[[], int]):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "pal_requests", "Requests for a completion by status.", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "pal_tokens", "Tokens read and generated.", ["kind"], registry=self.registry
        )
        self.guard = Counter(
            "pal_guard_actions", "What the guard had a face do.", ["action"], registry=self.registry
        )
        self.seconds = Histogram(
            "pal_request_seconds", "Time to the end of a completion.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.first = Histogram(
            "pal_first_piece_seconds", "Time to the first words of a stream.", buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        Gauge("pal_waiting", "Requests that wait.", registry=self.registry).set_function(waiting)
        Gauge("pal_active", "Replies that grow.", registry=self.registry).set_function(active)

    def page(self) -> bytes:
        """Return all numbers in Prometheus' form."""
        return bytes(generate_latest(self.registry))
