"""The Stream of a served stream, in the hands of the worker whose turn it is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from rdn_engine.config import Dials
from rdn_engine.errors import FrameError
from rdn_engine.frame import Frame
from rdn_engine.results import Detections
from rdn_engine.serve.account import Account, DropReason
from rdn_engine.serve.listener import Listener
from rdn_engine.serve.push import Push
from rdn_engine.serve.troubles import Troubles
from rdn_engine.stream.base import Stream


class Facts(NamedTuple):
    """What can be said of a Stream at any time, also once it is gone."""

    dials: Dials
    """Settings in effect"""
    epochs: int
    """How often its window started empty"""
    seconds: dict[str, float]
    """Of each stage, as `Stream.timings`"""


class StreamRunner:
    """Pushes frames and accounts for each. One thread at a time; `facts` from any."""

    def __init__(
        self,
        name: str,
        stream: Stream,
        account: Account,
        troubles: Troubles,
        post: Callable[[list[Detections]], None],
        pushes: Listener[Push],
        max_failures: int,
    ) -> None:
        """Own a stream.

        Args:
            name: of the served stream.
            stream: just opened.
            account, troubles: of the served stream.
            post: takes the results, after the account has them.
            pushes: told of every push.
            max_failures: pushes in a row that may fail.
        """
        self._name = name
        self._stream: Stream | None = stream
        self._account, self._troubles, self._post = account, troubles, post
        self._pushes, self._max_failures = pushes, max_failures
        self._failures = 0
        self._pending = False
        self._last = _facts(stream)
        self.fills_between = stream.fills_between
        """As of the Stream"""

    @property
    def facts(self) -> Facts:
        """Those of now, or the last ones."""
        stream = self._stream
        return self._last if stream is None else _facts(stream)

    @property
    def inside(self) -> int:
        """Frames that were taken and whose results the sink has not got yet"""
        return self._account.frames().inside

    def push(self, frame: Frame) -> Exception | None:
        """Take a frame, and post what it makes ready.

        Args:
            frame: from the source.

        Returns:
            The failure that was one too many; None where the stream can go on.
        """
        stream = self._open()
        self._account.take(frame.capture is not None and frame.capture.doubtful)
        before = stream.accepted
        results, raised = self._pushed(stream, frame)
        if isinstance(raised, FrameError):
            self._account.pushed(False, 0, "refused")
            self._troubles.bad("refused", f"a frame was refused: {raised}", raised)
            return None
        if raised is not None:
            # A frame that was accepted is still in the window, and its result is tried again with the next push.
            self._pending |= stream.accepted > before
            self._account.pushed(stream.accepted > before, 0)
            self._troubles.bad("failing", f"a push failed: {raised!r}", raised)
            self._failures += 1
            return raised if self._failures >= self._max_failures else None
        self._pending = True
        self._account.pushed(True, len(results))
        self._post(results)
        self._failures = 0
        self._troubles.good("refused", "failing")
        return None

    def _pushed(self, stream: Stream, frame: Frame) -> tuple[list[Detections], Exception | None]:
        """Push, and tell who wants to know: the results, and what was raised."""
        told = self._pushes.wanted
        spent = dict(stream.timings.seconds) if told else {}
        moment, clock = (time.time(), time.perf_counter()) if told else (0.0, 0.0)
        results: list[Detections] = []
        error: Exception | None = None
        try:
            results = stream.push(frame)
        except BaseException as raised:
            error = as_exception(raised)
        if told:
            seconds = time.perf_counter() - clock
            stages = {stage: now - spent[stage] for stage, now in stream.timings.seconds.items() if now > spent[stage]}
            push = Push(
                self._name, frame.index, stream.epoch, frame.capture, moment, seconds, stages, len(results), error
            )
            self._pushes.tell(push)
        return results, error

    def end_epoch(self) -> None:
        """Post the results that wait for later frames: the next one begins another epoch, whenever it comes."""
        stream = self._open()
        if self._pending:
            self._pending = not self._flush(stream)

    def turn(self, dials: Dials, admit: Callable[[Stream, Dials], None]) -> None:
        """Change the settings.

        Args:
            dials: for the frames to come.
            admit: says whether there is room for what they hold.

        Raises:
            ConfigError: for dials above the capacity; and what `admit` raises. Then nothing has changed.
        """
        stream = self._open()
        before, stream.dials = stream.dials, dials
        try:
            admit(stream, dials)
        except Exception:
            stream.dials = before
            raise

    def close(self, *, flush: bool, reason: DropReason) -> None:
        """Give up the stream and its memory.

        Args:
            flush: posts the results still to come first.
            reason: why those are dropped that do not come; where they should and fail, it is `failed`.
        """
        stream = self._open()
        if flush and not self._flush(stream):
            reason = "failed"
        self._account.give_up_held(reason)
        with contextlib.suppress(Exception):  # it is given up, whatever its machine says
            stream.close()
        self._last = _facts(stream)
        self._stream = None

    def _flush(self, stream: Stream) -> bool:
        try:
            results = stream.flush()
        except Exception as error:
            self._troubles.bad("failing", f"the last results failed: {error!r}", error)
            return False
        self._account.flushed(len(results))
        self._post(results)
        return True

    def _open(self) -> Stream:
        assert self._stream is not None, "no step comes after the last"
        return self._stream


def as_exception(error: BaseException) -> Exception:
    """What was raised, as something that an event can hold and a thread can go on after.

    Args:
        error: `SystemExit` among others.
    """
    return error if isinstance(error, Exception) else RuntimeError(f"{error!r} was raised")


def _facts(stream: Stream) -> Facts:
    epochs = stream.epoch + 1 if stream.accepted else 0
    return Facts(stream.dials, epochs, dict(stream.timings.seconds))
