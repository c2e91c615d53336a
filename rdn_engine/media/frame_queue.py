"""Frames on their way from a thread that reads to one that detects, and what happens when there are too many."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import Literal, NamedTuple

from rdn_engine.frame import Frame

Policy = Literal["wait", "drop_oldest", "drop_latest"]
"""When a frame comes and there is no room: the reader waits, the oldest frame goes, or the new one goes."""


class _Waiting(NamedTuple):
    frame: Frame
    dropped: int
    """Frames given up between this one and the one before it"""


class FrameQueue:
    """At most `room` frames, one writer, one reader. Every frame is taken or counted as dropped, never both."""

    def __init__(self, room: int, policy: Policy) -> None:
        """Nothing waits yet.

        Args:
            room: frames, 1 or more.
            policy: what happens without room.
        """
        self._room = room
        self._policy = policy
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._pending = 0
        """Frames given up behind the newest one that waits"""
        self._closed = False
        self.dropped = 0
        """Frames given up so far"""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: Frame) -> None:
        """Add a frame that has a `capture`; blocks where the policy is `wait`. After `close` the frame is dropped.

        Args:
            frame: newer than all before it.
        """
        with self._changed:
            if self._policy == "wait":
                self._changed.wait_for(lambda: self._closed or len(self._waiting) < self._room)
            if self._closed or (self._policy == "drop_latest" and len(self._waiting) == self._room):
                self._pending += 1
                self.dropped += 1
                return
            given_up = self._pending
            self._pending = 0
            if len(self._waiting) == self._room:
                given_up += self._drop_oldest()
            self._waiting.append(_Waiting(frame, given_up))
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> Frame | None:
        """Take the oldest frame.

        Args:
            timeout: seconds to wait for one; None waits until there is one or `close`.

        Returns:
            The frame, whose capture says how many were dropped before it; None where none came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting, timeout)
            if not self._waiting:
                return None
            frame, dropped = self._waiting.popleft()
            self._changed.notify_all()
        assert frame.capture is not None
        return replace(frame, capture=replace(frame.capture, dropped=dropped))

    def close(self, *, drop: bool) -> None:
        """Take no more frames, and wake whoever waits.

        Args:
            drop: those that wait too; otherwise they can still be taken.
        """
        with self._changed:
            self._closed = True
            if drop:
                self.dropped += len(self._waiting)
                self._waiting.clear()
            self._changed.notify_all()

    def _drop_oldest(self) -> int:
        """Give up the oldest frame; those before it count for the next. Returns what nobody is left to say."""
        given_up = self._waiting.popleft().dropped + 1
        self.dropped += 1
        if not self._waiting:
            return given_up
        following = self._waiting[0]
        self._waiting[0] = following._replace(dropped=following.dropped + given_up)
        return 0
