"""A process's own figures for Prometheus, where ``BATCH_METRICS_PORT`` asks for them.

Flower's ``/metrics`` has the tasks; this has what only the process knows. Read at each scrape,
never written: it costs nothing between scrapes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from worker.jobs import Verdict
from worker.meter import LATENCY_BOUNDS_S, Meter
from worker.process import Process

log = logging.getLogger(__name__)


def serve_metrics(process: Process, *, host: str, port: int) -> None:
    """Answer scrapes until the process ends, in a thread of their own. Returns at once.

    A port that is taken is logged, not fatal: two workers on one host may share an environment.
    """
    registry = CollectorRegistry()
    registry.register(ProcessCollector(process))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        log.error("metrics are not served", extra={"event": "metrics_failed", "reason": str(error)})


class ProcessCollector(Collector):
    """Turns a process's state into metrics, whenever it is asked."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def collect(self) -> Iterable[Metric]:
        """Everything, as it stands now. Called in the server's thread: it only reads."""
        yield from _counters(self._process.meter)
        yield _latency(self._process.meter)
        yield from _waits(self._process)
        yield from _gauges(self._process)


def _counters(meter: Meter) -> Iterator[Metric]:
    rows = {verdict.value: meter.rows[verdict] for verdict in Verdict}
    yield _labelled("batch_rows", "Rows with an outcome, by verdict.", verdict=rows)
    kinds = ("prompt", "completion", "cached", "reasoning")
    tokens = {kind: meter.tokens[kind] for kind in kinds}
    yield _labelled("batch_tokens", "Tokens that the API billed, by kind.", kind=tokens)
    for name, text in (
        ("sent", "HTTP requests sent."),
        ("answered", "HTTP requests answered, with any status."),
        ("retried", "HTTP requests that were not the first of their row."),
        ("throttled", "HTTP requests refused by a limit (429)."),
    ):
        yield CounterMetricFamily(f"batch_requests_{name}", text, value=meter.requests[name])
    yield CounterMetricFamily("batch_cost_usd", "What the rows cost.", value=meter.cost_usd)
    yield _labelled(
        "batch_deliveries", "Deliveries of batches, by their end.", end=dict(meter.deliveries)
    )


def _latency(meter: Meter) -> Metric:
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    buckets = list(zip(bounds, accumulate(meter.latencies), strict=True))
    return HistogramMetricFamily(
        "batch_request_duration_seconds",
        "From a request to its answer, waits left out; of rows that succeeded.",
        buckets=buckets,
        sum_value=meter.latency_sum_s,
    )


def _waits(process: Process) -> Iterator[Metric]:
    waits = process.lanes.waits
    yield CounterMetricFamily(
        "batch_limiter_wait_seconds",
        "Time that requests have waited for their turn, summed over requests.",
        value=waits.waited_s,
    )
    yield CounterMetricFamily("batch_limiter_turns", "Turns given.", value=waits.turns)


def _gauges(process: Process) -> Iterator[Metric]:
    open_batches = list(process.open.values())
    pending = [batch.pending for batch in open_batches if batch.pending.outcomes]
    unwritten = sum(len(waiting.outcomes) for waiting in pending)
    since_s = min((waiting.since_s for waiting in pending), default=math.inf)
    causes = {batch.waiting_for for batch in open_batches}
    for name, text, value in (
        ("batch_open_batches", "Batches that this process holds a lease on.", len(open_batches)),
        (
            "batch_requests_in_flight",
            "Rows that hold a slot: sent, or waiting for their turn.",
            process.slots.busy,
        ),
        ("batch_requests_waiting", "Requests that wait for a slot.", process.slots.waiting),
        ("batch_slots", "Requests that this process may have in flight.", process.slots.size),
        (
            "batch_checkpoint_pending_rows",
            "Rows answered, and not in Redis yet.",
            unwritten,
        ),
        (
            "batch_checkpoint_lag_seconds",
            "For how long rows have waited to be in Redis; 0 where none waits.",
            max(0.0, time.monotonic() - since_s),
        ),
        (
            "batch_sending_held",
            "1 while nothing is sent: the endpoint is down, or outcomes could not be kept.",
            int(process.gate.is_closed or process.breakers.are_open),
        ),
        ("batch_waiting", "1 while rows wait for a limit, a pause or an endpoint.", any(causes)),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, **values: Mapping[str, float]) -> Metric:
    ((label, by_value),) = values.items()
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in by_value.items():
        family.add_metric([value], count)
    return family
