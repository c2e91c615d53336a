"""RTP packets that never came. FFmpeg says them in its log and nowhere else: "RTP: missed N packets".

PyAV has FFmpeg's log turned off until an application asks for it. While a source is read that may lose packets it is
on here, up to warnings; each message goes to the read that caused it, by its thread, and is looked at and let go: it
may quote the address. What an application has asked for goes on into Python's logging as it would without this, but
for one thing: PyAV leaves out a line that repeats the last one, of whichever thread, and losses of two cameras would
be taken for repeats, so it is told not to. An application that has asked for less than warnings gets no count.
"""

from __future__ import annotations

import logging
import re
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import av.logging

_MISSED = re.compile(r"RTP: missed (\d+) packets")
_OURS = av.logging.WARNING + 1
"""Warnings too, and by its value no level that an application asks for"""
_SILENT = logging.CRITICAL + 1


class PacketLosses:
    """Counts the lost packets of one source."""

    def __init__(self) -> None:
        """Turn the log on, until `close` or the end of this object."""
        self.total = 0
        """Packets lost so far"""
        _log.acquire()
        self._release = weakref.finalize(self, _log.release)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is said in this thread, by the one read of this source in it."""
        with av.logging.Capture(True) as lines:
            try:
                yield
            finally:
                _log.make_way()
                if lines:
                    self._look_at(lines)

    def close(self) -> None:
        """Turn the log off, where no other source wants it; calling it again does nothing."""
        self._release()

    def _look_at(self, lines: list[tuple[int, str, str]]) -> None:
        for level, name, message in lines:
            missed = _MISSED.match(message)
            self.total += int(missed[1]) if missed else 0
            if av.logging.get_level() != _OURS:
                logging.getLogger(f"libav.{name or 'generic'}").log(av.logging.adapt_level(level), message.strip())


class _Log:
    """FFmpeg's log, which is the whole process's: on while any source wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._repeats = True
        self._level = logging.NOTSET

    def acquire(self) -> None:
        """One more wants it."""
        with self._lock:
            self._wanted += 1
            if self._wanted > 1:
                return
            self._repeats = av.logging.get_skip_repeated()
            av.logging.set_skip_repeated(False)
            if av.logging.get_level() is None:
                # What comes from other threads was not asked for: it must not appear on anybody's terminal.
                self._level = _logger.level
                _logger.setLevel(_SILENT)
                av.logging.set_level(_OURS)

    def make_way(self) -> None:
        """Let Python's logging have what an application has asked for meanwhile."""
        if _logger.level == _SILENT and av.logging.get_level() != _OURS:
            _logger.setLevel(self._level)

    def release(self) -> None:
        """One less does. What an application has set meanwhile stays."""
        with self._lock:
            self._wanted -= 1
            if self._wanted:
                return
            av.logging.set_skip_repeated(self._repeats)
            if av.logging.get_level() == _OURS:
                av.logging.set_level(None)
            if _logger.level == _SILENT:
                _logger.setLevel(self._level)


_logger = logging.getLogger("libav")
_log = _Log()


def loses_packets(url: str, rtsp_over: str) -> bool:
    """Whether a source comes as RTP packets that may get lost on their way.

    Args:
        url: for FFmpeg.
        rtsp_over: what carries RTSP's.
    """
    scheme = url.partition("://")[0].lower()
    return scheme in ("rtp", "srtp") or (scheme in ("rtsp", "rtsps") and rtsp_over == "udp")
