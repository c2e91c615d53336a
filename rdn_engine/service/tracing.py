"""OpenTelemetry spans: one for a frame from its arrival to the end of its push, children for the queue and each stage.

Names of spans and attributes begin with `rdn.`; times are the wall clock's (OpenTelemetry specification 1.x, tracing).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rdn_engine.errors import BackendUnavailable
from rdn_engine.media.address import without_credentials
from rdn_engine.media.given import given_value
from rdn_engine.serve.push import Push
from rdn_engine.service.config import TraceSettings
from rdn_engine.version import version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_log = logging.getLogger("rdn_engine.service")
_SECOND = 10**9


class Tracer:
    """Makes spans of pushes and sends them, from a thread of the library. What cannot be sent is lost, and logged."""

    def __init__(self, settings: TraceSettings, exporter: SpanExporter | None = None) -> None:
        """Start the thread.

        Args:
            settings: where to, and of which part of the frames.
            exporter: instead of the settings' own; for tests.

        Raises:
            BackendUnavailable: without the extra `otel`.
            ConfigError: for an endpoint that is named elsewhere and not there.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
            from opentelemetry.trace import Status, StatusCode, set_span_in_context
        except ImportError:
            raise BackendUnavailable(
                "spans need OpenTelemetry: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
            ) from None
        endpoint = given_value(settings.endpoint, "an address")
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_quiet)
        quiet = _QuietExporter(exporter or OTLPSpanExporter(endpoint=endpoint, timeout=5.0), endpoint)
        resource = Resource.create({"service.name": "rdn-engine", "service.version": version()})
        # Of its own, not the process's: the end of this service must not be the end of another's spans.
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(settings.part), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(cast("SpanExporter", quiet)))
        self._tracer = self._provider.get_tracer("rdn_engine", version())
        self._within = set_span_in_context
        self._failed = Status(StatusCode.ERROR)

    def take(self, push: Push) -> None:
        """Make the spans of a push.

        Args:
            push: as the scheduler tells it. The stages are shown one after the other, in the order they ended.
        """
        began = int(push.began * _SECOND)
        arrived = began if push.capture is None else min(int(push.capture.time * _SECOND), began)
        frame = self._tracer.start_span(
            "rdn.frame",
            start_time=arrived,
            attributes={
                "rdn.stream": push.stream, "rdn.frame_index": push.frame_index, "rdn.epoch": push.epoch,
                "rdn.results": push.results,
            },
        )  # fmt: skip
        if frame.is_recording():
            context = self._within(frame)
            if push.capture is not None:
                frame.set_attribute("rdn.dropped", push.capture.dropped)
                frame.set_attribute("rdn.doubtful", push.capture.doubtful)
                frame.set_attribute("rdn.session", push.capture.session)
                self._tracer.start_span("rdn.queue", context, start_time=arrived).end(began)
            stage_began = began
            for stage, seconds in push.stages.items():
                stage_ended = stage_began + int(seconds * _SECOND)
                self._tracer.start_span(f"rdn.{stage}", context, start_time=stage_began).end(stage_ended)
                stage_began = stage_ended
            if push.error is not None:
                frame.record_exception(push.error, timestamp=began)
                frame.set_status(self._failed)
        frame.end(began + int(push.seconds * _SECOND))

    def close(self, seconds: float) -> None:
        """Send what waits, and stop.

        Args:
            seconds: that it may take to send. What is not sent then is lost.
        """
        # The library waits for a collector that is away for up to half a minute, whatever it is told.
        closer = threading.Thread(target=self._provider.shutdown, name="rdn-spans", daemon=True)
        closer.start()
        closer.join(seconds)


class _QuietExporter:
    """An exporter that says once that it cannot send, and once that it can again. The library says it with each batch
    and each attempt, and with the query of the address, where tokens stand.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter, self._place = exporter, without_credentials(endpoint)
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        _sending.on = True
        try:
            result = self._exporter.export(spans)
        finally:
            _sending.on = False
        if self._failing != (result.name != "SUCCESS"):
            self._failing = not self._failing
            if self._failing:
                _log.warning("spans cannot be sent to %s; they are lost until that is over", self._place)
            else:
                _log.info("spans are sent to %s again", self._place)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Quiet(logging.Filter):
    """Of the library's lines, those of other exporters of this process alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_sending, "on", False)


_sending, _quiet = threading.local(), _Quiet()
