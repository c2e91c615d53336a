"""The log of a service."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rdn_engine.serve.events import Event
from rdn_engine.serve.listener import WAITING
from rdn_engine.serve.snapshot import StreamSnapshot
from rdn_engine.service.logs import (
    JsonFormatter,
    TextFormatter,
    WaitlessHandler,
    log_event,
    log_failure,
    log_output,
    log_restart,
)
from tests.serve.doubles import WAIT, Camera, Log, frames, serving, watched_detector


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    kept: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("rdn_engine.service"), logging.Handler()
    handler.emit = kept.append  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield kept
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(scope="module")
def final() -> StreamSnapshot:
    """Of a stream that was removed."""
    log = Log()
    with serving(watched_detector()[0], on_event=log) as scheduler:
        camera = Camera(scheduler, "door", frames(range(3)))
        camera.sink.wait(1)
        camera.served.remove(drain=True)
        last = log.wait("ended", "door").final
    assert last is not None
    return last


def line(record: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    read = json.loads(text)
    assert isinstance(read, dict)
    return read


def test_event_has_its_fields(records: list[logging.LogRecord]) -> None:
    log_event(Event("source_down", "dö\nor", 0.0, "the source failed: no route"))
    read = line(records[0])
    assert (read["level"], read["logger"], read["stream"], read["event"]) == (
        "warning", "rdn_engine.service", "dö\nor", "source_down",
    )  # fmt: skip
    assert str(read["message"]).endswith("the source failed: no route")
    assert "counts" not in read


def test_end_says_what_became_of_the_frames(records: list[logging.LogRecord], final: StreamSnapshot) -> None:
    log_event(Event("ended", "door", 0.0, "ended: removed", None, final))
    log_event(Event("ended", "door", 0.0, "ended: failed", None, replace(final, end_reason="failed")))
    good, bad = (line(record) for record in records)
    assert (good["level"], bad["level"]) == ("info", "error")
    assert good["counts"] == {"frames_in": 3, "frames_out": 3, "dropped": final.dropped}
    assert "3 frames in, 3 out, dropped: none" in str(good["message"])


def test_outputs_and_failures(records: list[logging.LogRecord]) -> None:
    log_output("lines", "failing", "output 'lines': no space left")
    log_output("lines", "recovered", "output 'lines' works again")
    log_failure("door", "could not be started again")
    log_restart("door", 5.0)
    read = [line(record) for record in records]
    assert [one["level"] for one in read] == ["warning", "info", "error", "info"]
    assert [one.get("output") for one in read] == ["lines", "lines", None, None]
    assert read[0]["message"] == "output 'lines': no space left", "once"
    assert (read[3]["event"], read[3]["message"]) == ("restart", "stream 'door': starts again in 5 s")
    assert read[2]["stream"] == "door"


def test_trace_of_an_exception_is_part_of_the_line(records: list[logging.LogRecord]) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("rdn_engine.service").exception("it failed")
    assert "ValueError: two\nlines" in str(line(records[0])["error"])


def test_text_is_one_line_however_it_was_said(records: list[logging.LogRecord]) -> None:
    """A name or a message from outside must not look like a line of its own."""
    log_event(Event("refused", "door", 0.0, "bad\n2026-01-01T00:00:00Z INFO forged"))
    text = TextFormatter().format(records[0])
    assert len(text.splitlines()) == 1
    assert " WARNING stream 'door': bad " in text


def test_lines_that_nobody_reads_hold_up_nobody() -> None:
    reader, writer = os.pipe()
    handler = WaitlessHandler(writer)
    logger = logging.getLogger("rdn_engine.service")
    logger.addHandler(handler)
    try:
        long = "x" * 1000
        for _ in range(3 * WAITING):  # a pipe has room for some, the handler for others
            logger.warning(long)
        handler.finish(0.0)
        os.set_blocking(reader, False)
        with open(reader, "rb") as told:
            got = b""
            while b"lines of the log are lost: nobody read them" not in got:
                got += told.read() or b""
    finally:
        logger.removeHandler(handler)
    assert got.startswith(long.encode() + b"\n"), "lines are whole, and in order"
    said = next(line for line in got.decode().splitlines() if "are lost" in line)
    assert 0 < int(said.split()[0]) < 3 * WAITING
    handler.finish(WAIT)
    os.close(writer)


def test_last_lines_are_written_before_the_end() -> None:
    reader, writer = os.pipe()
    handler = WaitlessHandler(writer)
    handler.handle(logging.makeLogRecord({"msg": "the end \udcff"}))
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))  # cannot be formatted
    handler.finish(WAIT)
    os.close(writer)
    with open(reader, "rb") as told:
        assert told.read() == b"the end \\udcff\n"
