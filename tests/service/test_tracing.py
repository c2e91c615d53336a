"""Spans of pushes, as OpenTelemetry's own library and a collector of it see them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rdn_engine.capture import Capture
from rdn_engine.errors import ConfigError
from rdn_engine.serve.push import Push
from rdn_engine.service.config import TraceSettings
from rdn_engine.service.tracing import Tracer, _QuietExporter
from tests.media.clips import encode
from tests.serve.doubles import WAIT
from tests.service.doubles import service
from tests.service.receivers import receiving

SECOND = 10**9
PUSH = Push(
    stream="door", frame_index=7, epoch=1, capture=Capture(99.5, 2, True, 3, 0.0), began=100.0, seconds=0.5,
    stages={"backbone": 0.25, "relation": 0.125}, results=1, error=None,
)  # fmt: skip


def spans(*pushes: Push, part: float = 1.0) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    tracer = Tracer(TraceSettings("http://127.0.0.1:1/v1/traces", part), exporter)
    for push in pushes:
        tracer.take(push)
    tracer.close(WAIT)
    return {span.name: span for span in exporter.get_finished_spans()}


def test_frame_has_its_queue_and_its_stages_one_after_the_other() -> None:
    made = spans(PUSH)
    assert set(made) == {"rdn.frame", "rdn.queue", "rdn.backbone", "rdn.relation"}
    assert {name: (span.start_time, span.end_time) for name, span in made.items()} == {
        "rdn.frame": (99.5 * SECOND, 100.5 * SECOND),
        "rdn.queue": (99.5 * SECOND, 100 * SECOND),
        "rdn.backbone": (100 * SECOND, 100.25 * SECOND),
        "rdn.relation": (100.25 * SECOND, 100.375 * SECOND),
    }
    frame = made.pop("rdn.frame")
    assert {span.parent.span_id for span in made.values() if span.parent} == {frame.context.span_id}
    assert dict(frame.attributes or {}) == {
        "rdn.stream": "door", "rdn.frame_index": 7, "rdn.epoch": 1, "rdn.results": 1, "rdn.dropped": 2,
        "rdn.doubtful": True, "rdn.session": 3,
    }  # fmt: skip
    assert frame.resource.attributes["service.name"] == "rdn-engine"


def test_failure_is_marked() -> None:
    from dataclasses import replace

    frame = spans(replace(PUSH, error=MemoryError("no room"), capture=None))["rdn.frame"]
    assert frame.status.status_code is StatusCode.ERROR
    assert frame.start_time == 100 * SECOND, "without a capture it begins with the push"
    assert [event.name for event in frame.events] == ["exception"]


def test_part_of_the_frames() -> None:
    assert spans(*[PUSH] * 50, part=0.0) == {}


def test_endpoint_named_elsewhere_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLLECTOR", raising=False)
    with pytest.raises(ConfigError, match="wanted an address in it"):
        Tracer(TraceSettings("env:NO_COLLECTOR"))


def test_collector_that_does_not_answer_holds_up_no_end_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with receiving() as server:
        server.answers.append("silent")
        tracer = Tracer(TraceSettings(f"http://127.0.0.1:{server.server_port}/v1/traces?token=hush", 1.0))
        tracer.take(PUSH)
        closer = threading.Thread(target=tracer.close, args=(0.1,), daemon=True)
        closer.start()
        closer.join(4.0)  # less than one attempt of the library takes
        late = closer.is_alive()
    assert not late
    assert "hush" not in caplog.text


def test_collector_that_is_away_is_told_once_without_its_token(caplog: pytest.LogCaptureFixture) -> None:
    states = [SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS]

    class Exporter(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            logging.getLogger(OTLPSpanExporter.__module__).warning("url: /v1/traces?token=hush")
            return states.pop(0)

    exporter = _QuietExporter(Exporter(), "http://127.0.0.1:1/v1/traces?token=hush")
    tracer = Tracer(TraceSettings("http://127.0.0.1:1/v1/traces"), InMemorySpanExporter())
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            exporter.export([])
        logging.getLogger(OTLPSpanExporter.__module__).warning("of another exporter")
    tracer.close(WAIT)
    assert [record.getMessage() for record in caplog.records] == [
        "spans cannot be sent to http://127.0.0.1:1/v1/traces; they are lost until that is over",
        "spans are sent to http://127.0.0.1:1/v1/traces again",
        "of another exporter",
    ]


def test_collector_gets_every_frame_of_a_service(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "clip.mp4", frames=9))
    with receiving() as server:
        data = {
            "trace": {"endpoint": f"http://127.0.0.1:{server.server_port}/v1/traces", "part": 1.0},
            "streams": {"door": {"source": clip, "real_time": False, "policy": "wait"}},
        }
        with service(data) as running:
            assert running.wait(WAIT)
            running.close(drain=True, deadline_s=WAIT)
    assert {request.path for request in server.requests} == {"/v1/traces"}
    got = [ExportTraceServiceRequest.FromString(request.body) for request in server.accepted]
    names = [
        (span.name, next((a.value.int_value for a in span.attributes if a.key == "rdn.frame_index"), None))
        for request in got
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(index for name, index in names if name == "rdn.frame" and index is not None) == list(range(9))
    assert len([name for name, _ in names if name == "rdn.backbone"]) == 9
