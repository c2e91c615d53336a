"""What Prometheus scrapes, read by its own parsers."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from rdn_engine.serve.account import AGE_BOUNDS, DROP_REASONS
from rdn_engine.service.metrics import exposition
from rdn_engine.service.service import Service
from tests.media.clips import encode
from tests.service.doubles import service, until

NAME = 'a "door"\\'


@pytest.fixture
def running(tmp_path: Path) -> Service:
    clip = str(encode(tmp_path / "clip.mp4", frames=40))
    data = {
        "byte_budget": 2**30,
        "outputs": {"lines": {"kind": "jsonl", "path": str(tmp_path / "lines.jsonl")}},
        "streams": {NAME: {"source": clip, "outputs": ["lines"], "policy": "wait"}},
    }
    with service(data) as made:
        until(lambda: made.snapshot().streams and made.snapshot().streams[0].frames_out > 3)
        yield made


def samples(service: Service, accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    content_type, body = exposition(service, accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_stream_is_counted(running: Service, accept: str) -> None:
    stream = ("stream", NAME)
    before = running.snapshot().streams[0]
    read = samples(running, accept)
    after = running.snapshot().streams[0]

    def of(name: str, *labels: tuple[str, str]) -> float:
        return read[f"rdn_{name}", tuple(sorted((stream, *labels)))]

    assert before.frames_in <= of("frames_in_total") <= after.frames_in
    assert before.frames_out <= of("frames_out_total") <= after.frames_out
    dropped = sum(of("frames_dropped_total", ("reason", reason)) for reason in DROP_REASONS)
    assert of("frames_in_total") == of("frames_out_total") + dropped + of("queue_frames") + of("inside_frames")
    assert of("sessions_total") == of("epochs_total") == 1
    assert of("stream_bytes") == before.nbytes
    bounds = [*(f"{bound:g}" for bound in AGE_BOUNDS), "+Inf"]
    ages = [
        next(v for (n, labels), v in read.items() if n == "rdn_result_age_seconds_bucket" and stream in labels
             and float(dict(labels)["le"]) == float(bound))
        for bound in bounds
    ]  # fmt: skip
    assert ages == sorted(ages)
    assert ages[-1] == of("result_age_seconds_count") >= before.frames_out
    assert of("result_age_seconds_sum") > 0
    assert of("stage_seconds_total", ("stage", "backbone")) > 0
    assert {of("camera_flag", ("flag", flag)) for flag in ("dark", "frozen", "shifted")} <= {0.0, 1.0}
    output = ("output", "lines")
    assert of("stream_output_written_total", output) + of("stream_output_waiting", output) > 0


def test_process_is_counted(running: Service) -> None:
    read = samples(running)
    assert read["rdn_healthy", ()] == 1
    assert read["rdn_streams", ()] == 1
    assert read["rdn_budget_bytes", ()] == 2**30
    assert read["rdn_admitted_bytes", ()] == running.snapshot().admitted_bytes
    assert read["process_resident_memory_bytes", ()] > 2**20
    assert read["rdn_output_in_trouble", (("output", "lines"),)] == 0


def test_stream_that_has_ended_is_gone(running: Service) -> None:
    running.remove(NAME, drain=False)
    until(lambda: not running.snapshot().streams)
    read = samples(running)
    assert not [key for key in read if key[0] == "rdn_frames_in_total"]
    assert not [key for key in read if key[0] == "rdn_stream_output_written_total"]
    assert read["rdn_streams_ended_total", ()] == 1
    # What the output did for it stays in the sums.
    assert read["rdn_output_written_total", (("output", "lines"),)] == running.outputs["lines"].totals().written > 0
