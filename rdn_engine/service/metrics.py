"""Counters of a service for Prometheus (text format 0.0.4 and OpenMetrics 1.0)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rdn_engine.errors import BackendUnavailable
from rdn_engine.serve.account import AGE_BOUNDS
from rdn_engine.serve.snapshot import SchedulerSnapshot
from rdn_engine.service.outputs import OutputCounts
from rdn_engine.service.service import Service

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

FLAGS = ("dark", "frozen", "shifted")
"""All that a camera's picture may be flagged for, so that a series says 0 before it says 1"""
_COUNTERS = {
    "frames_in": "Frames that arrived at the source",
    "frames_out": "Frames whose results the sink has taken",
    "frames_doubtful": "Frames that were perhaps damaged, and detected on",
    "frames_damaged": "Frames lost before they arrived; not part of rdn_frames_in",
    "packets_lost": "RTP packets that did not come",
    "sessions": "Connections of the source",
    "source_failures": "Attempts and connections of the source that failed",
    "epochs": "Windows that started empty",
}
_GAUGES = {
    "queue_frames": "Frames that wait in the source",
    "inside_frames": "Frames in the window whose results are still to come, and results that wait for the sink",
    "lowered_steps": "Steps by which a latency budget has lowered the dials",
    "stream_bytes": "What the stream may hold at most",
    "stream_restarts": "Times in a row that the stream was started again after a failure",
}


class ServiceCollector:
    """Asks the service whenever it is scraped; keeps nothing. Register it with a prometheus_client registry."""

    def __init__(self, service: Service) -> None:
        """service: whose counters these are."""
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """All metrics now. A stream that has ended is gone from them."""
        snapshot = self._service.snapshot()
        yield from _of_process(snapshot, self._service.stuck() is None)
        yield from _of_streams(snapshot, self._service.restarts())
        yield from _of_pictures(self._service.flags())
        yield from _of_outputs(self._service)


def exposition(service: Service, accept: str) -> tuple[str, bytes]:
    """What GET /metrics answers.

    Args:
        service: whose counters are asked for.
        accept: header of the request, which chooses the format.

    Returns:
        Content type and body: the service's metrics, and the process's own (memory, CPU, descriptors).

    Raises:
        BackendUnavailable: without the extra `serve`.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise BackendUnavailable("metrics need prometheus-client: pip install prometheus-client") from None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(ServiceCollector(service))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def _of_process(snapshot: SchedulerSnapshot, healthy: bool) -> Iterable[Metric]:
    yield _gauge("healthy", "1 where no stage is stuck", float(healthy))
    yield _gauge("streams", "Streams that have not ended", float(len(snapshot.streams)))
    yield _counter("streams_ended", "Streams that have ended", float(snapshot.ended))
    yield _gauge("workers", "Threads that push frames, one each at a time", float(snapshot.workers))
    yield _gauge("longest_turn_seconds", "Of a worker that is busy now", snapshot.longest_turn)
    yield _gauge("admitted_bytes", "What the streams may hold at most", float(snapshot.admitted_bytes))
    if snapshot.byte_budget is not None:
        yield _gauge("budget_bytes", "What all streams may hold", float(snapshot.byte_budget))
    yield _counter("events_lost", "Events that were not logged", float(snapshot.events_lost))
    yield _counter("pushes_lost", "Frames that tracing had no room for", float(snapshot.pushes_lost))


def _of_streams(snapshot: SchedulerSnapshot, restarts: dict[str, int]) -> Iterable[Metric]:
    counters = {name: _counter(name, words, labels=["stream"]) for name, words in _COUNTERS.items()}
    gauges = {name: _gauge(name, words, labels=["stream"]) for name, words in _GAUGES.items()}
    dropped = _counter("frames_dropped", "Frames without a result that the sink has taken", labels=["stream", "reason"])
    ages = _histogram("result_age_seconds", "From the arrival of a frame to the call of the sink")
    stages = _counter("stage_seconds", "Wall-clock time of each stage", labels=["stream", "stage"])
    troubles = _gauge("stream_troubles", "Troubles that the stream is in now", labels=["stream", "trouble"])
    for one in snapshot.streams:
        values = (
            one.frames_in,
            one.frames_out,
            one.doubtful,
            one.damaged,
            one.lost_packets,
            one.sessions,
            one.failures,
            one.epochs,
        )
        for counter, value in zip(counters.values(), values, strict=True):
            counter.add_metric([one.name], float(value))
        levels = (one.waiting, one.inside, one.lowered, one.nbytes, restarts.get(one.name, 0))
        for gauge, value in zip(gauges.values(), levels, strict=True):
            gauge.add_metric([one.name], float(value))
        for reason, count in one.dropped.items():
            dropped.add_metric([one.name, reason], float(count))
        bounds = [*(f"{bound:g}" for bound in AGE_BOUNDS), "+Inf"]
        counts = itertools.accumulate(map(float, one.ages.counts))
        ages.add_metric([one.name], list(zip(bounds, counts, strict=True)), one.ages.seconds)
        for stage, seconds in one.seconds.items():
            stages.add_metric([one.name, stage], seconds)
        for trouble in one.troubles:
            troubles.add_metric([one.name, trouble], 1.0)
    yield from (*counters.values(), *gauges.values(), dropped, ages, stages, troubles)


def _of_pictures(flags: dict[str, tuple[str, ...]]) -> Iterable[Metric]:
    metric = _gauge("camera_flag", "1 where the picture is so", labels=["stream", "flag"])
    for stream, raised in flags.items():
        for flag in FLAGS:
            metric.add_metric([stream, flag], float(flag in raised))
    yield metric


def _of_outputs(service: Service) -> Iterable[Metric]:
    trouble = _gauge("output_in_trouble", "1 where its last attempt failed", labels=["output"])
    # A stream that comes and goes between two scrapes is in the sums alone.
    everyone = _accounts("output", ["output"])
    each = _accounts("stream_output", ["stream", "output"])
    for name, output in service.outputs.items():
        trouble.add_metric([name], float(output.trouble is not None))
        _add_account(everyone, [name], output.totals())
        for stream, counts in output.counts().items():
            _add_account(each, [stream, name], counts)
    yield from (*everyone, *each, trouble)


def _accounts(prefix: str, labels: list[str]) -> tuple[CounterMetricFamily, CounterMetricFamily, GaugeMetricFamily]:
    return (
        _counter(f"{prefix}_written", "Results that the output has taken", labels=labels),
        _counter(f"{prefix}_dropped", "Results that the output has not taken", labels=[*labels, "reason"]),
        _gauge(f"{prefix}_waiting", "Results that wait for the output", labels=labels),
    )


def _add_account(
    families: tuple[CounterMetricFamily, CounterMetricFamily, GaugeMetricFamily],
    labels: list[str],
    counts: OutputCounts,
) -> None:
    written, dropped, waiting = families
    written.add_metric(labels, float(counts.written))
    waiting.add_metric(labels, float(counts.waiting))
    for reason, count in counts.dropped.items():
        dropped.add_metric([*labels, reason], float(count))


def _counter(name: str, words: str, value: float | None = None, labels: list[str] | None = None) -> CounterMetricFamily:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(f"rdn_{name}", words, value=value, labels=labels)


def _gauge(name: str, words: str, value: float | None = None, labels: list[str] | None = None) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"rdn_{name}", words, value=value, labels=labels)


def _histogram(name: str, words: str) -> HistogramMetricFamily:
    from prometheus_client.core import HistogramMetricFamily

    return HistogramMetricFamily(f"rdn_{name}", words, labels=["stream"])
