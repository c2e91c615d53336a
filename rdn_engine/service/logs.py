"""The log of a service: a line of text or of JSON for each event."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from rdn_engine.lines import append_lines
from rdn_engine.serve.events import Event
from rdn_engine.serve.listener import Listener

_log = logging.getLogger("rdn_engine.service")
FLUSH_SECONDS = 2.0
"""That the end of a process waits for whoever reads its log"""
_GOOD = ("added", "dials", "restored", "recovered")
_FIELDS = ("stream", "event", "output", "counts")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970), level, logger, message; stream, event, output, counts, error
    where there are some.
    """

    def format(self, record: logging.LogRecord) -> str:
        """A line.

        Args:
            record: of any logger.
        """
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if getattr(record, name, None) is not None})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for people, with UTC time; a stack trace follows where there is one."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, in which nothing begins another.

        Args:
            record: of any logger.
        """
        return " ".join(super().formatMessage(record).splitlines())


class WaitlessHandler(logging.Handler):
    """Writes lines from a thread of its own: where nobody reads them, whoever logs does not wait, and neither does the
    end of the process. Beyond those that wait they are lost, and that is said when there is room again.
    """

    def __init__(self, number: int) -> None:
        """Start the thread.

        Args:
            number: of the open file to write to.
        """
        super().__init__()
        self._number, self._lost, self._over = number, 0, False
        self._lines: Listener[bytes | threading.Event] = Listener("rdn-log", self._write)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over a line.

        Args:
            record: of any logger.
        """
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
        else:
            self._lines.tell(line.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Wait, a moment, until what was logged is written."""
        written = threading.Event()
        if not self._over:
            self._lines.tell(written)
            written.wait(FLUSH_SECONDS)

    def finish(self, seconds: float) -> None:
        """Write what waits, and no more.

        Args:
            seconds: that it may take.
        """
        self._over = True
        self._lines.close(seconds)

    def _write(self, line: bytes | threading.Event) -> None:
        if isinstance(line, threading.Event):
            line.set()
            return
        append_lines(self._number, [line])
        lost = self._lines.lost - self._lost
        if lost:
            self._lost += lost
            _log.warning("%d lines of the log are lost: nobody read them", lost)


def log_event(event: Event) -> None:
    """Say what happened to a stream.

    Args:
        event: of a scheduler.
    """
    level = logging.INFO if event.kind in _GOOD else logging.WARNING
    counts: dict[str, Any] | None = None
    if event.final is not None:
        final = event.final
        level = logging.ERROR if final.end_reason in ("failed", "source") else logging.INFO
        counts = {"frames_in": final.frames_in, "frames_out": final.frames_out, "dropped": final.dropped}
    message = event.message if counts is None else f"{event.message}; {_words(counts)}"
    _log.log(
        level, "stream %r: %s", event.stream, message,
        extra={"stream": event.stream, "event": event.kind, "counts": counts},
    )  # fmt: skip


def log_failure(stream: str, message: str) -> None:
    """Say what went wrong with a stream that does not run.

    Args:
        stream: its name.
        message: for people.
    """
    _log.error("stream %r: %s", stream, message, extra={"stream": stream, "event": "failed"})


def log_restart(stream: str, seconds: float) -> None:
    """Say when a stream that failed is started again.

    Args:
        stream: its name.
        seconds: until then.
    """
    _log.info("stream %r: starts again in %g s", stream, seconds, extra={"stream": stream, "event": "restart"})


def log_output(output: str, kind: str, message: str) -> None:
    """Say that an output is in trouble, or out of it.

    Args:
        output: its name.
        kind: of the event.
        message: for people; it names the output.
    """
    level = logging.INFO if kind == "recovered" else logging.WARNING
    _log.log(level, "%s", message, extra={"output": output, "event": kind})


def _words(counts: dict[str, Any]) -> str:
    dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items() if count)
    return f"{counts['frames_in']} frames in, {counts['frames_out']} out, dropped: {dropped or 'none'}"
