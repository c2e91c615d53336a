"""Where the boxes of a step have moved to by the next one, in a stream that links and whose results wait.

Objects that move by more than their own size from step to step have no overlap to be linked by. So their boxes are
followed through the pictures of the frames between (`rdn_engine.stream.carried`), and links go from where they have
moved to. A picture waits until the boxes of the step before it are known, which takes L steps, and is then gone through
at once: as many wait as L steps have frames.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from rdn_engine.config import Dials
from rdn_engine.results import Detections
from rdn_engine.stream.carried import Carried, Passing, unseen
from rdn_engine.stream.following import Picture
from rdn_engine.stream.links import Moved
from rdn_engine.stream.order import FrameInfo, Role
from rdn_engine.stream.pairs import on_frame, pair, rows_of, surely_moved

FAINT = 0.03
"""Boxes of less confidence are not looked for. These are as they were found, before their tubes lift them. Chosen as
pairs.JITTER"""


def most_pictures(dials: Dials) -> int:
    """How many pictures a trail holds at most, that of the frame that comes included.

    Args:
        dials: of a stream that links and whose results wait.
    """
    return dials.frames_ahead * dials.interval + 2


class Trail:
    """Of one stream: pictures in, movements of the boxes of its steps out."""

    def __init__(self) -> None:
        self._frames: deque[Passing] = deque()  # behind the last step whose boxes are known, in order
        self._last: Carried | None = None  # those boxes
        self._next: Carried | None = None  # those of the step that was reached, until it is done with
        self._count = 0

    @property
    def pictures(self) -> int:
        """How many it holds"""
        return len(self._frames) + (self._last is not None)

    def append(self, info: FrameInfo, role: Role, picture: Picture) -> None:
        """A frame came. Nothing is computed that may fail: the stream has taken the frame.

        Args:
            info: of the frame, in the order of the stream.
            role: what becomes of it.
            picture: of the frame.
        """
        self._frames.append(Passing(info, role, self._count, picture))
        self._count += 1

    def follow(self) -> None:
        """Follow the boxes to the next encoded frame, as far as frames have come. It stays: its own go on from it."""
        last = self._last
        while last is not None and self._frames:
            frame = self._frames[0]
            last.follow(frame)
            if frame.role == "encoded":
                return
            self._frames.popleft()

    def reach(self, info: FrameInfo, found: Detections) -> Moved | None:
        """The boxes of the next encoded frame are known. Until `done` this may be tried again.

        Args:
            info: of the frame, the object that was appended.
            found: in it, not linked.

        Returns:
            How far those of the encoded frame before it have moved by it; None where nobody has seen them go.
        """
        self.follow()
        last, moved = self._last, None
        if last is not None and last.by is not None and last.by.info is info:
            moved = Moved(last.boxes, last.likely(last.by))
        self._next = None
        frame = next((frame for frame in self._frames if frame.info is info), None)
        if frame is None:
            return moved  # boxes were not followed yet when it came, or the stream has ended with it
        speed, since = np.zeros((len(found), 2), np.float32), None
        if last is not None and moved is not None:
            rows, others = (np.flatnonzero(of.confidence >= FAINT) for of in (last.boxes, found))
            before, now = rows_of(last.boxes, rows), rows_of(found, others)
            pairs = pair(replace(before, xyxy=on_frame(before, moved.by[rows])), now)
            speed[others[pairs.after]] = surely_moved(before, now, pairs)
            since = unseen(last.frame)
        self._next = Carried(frame, found, speed, FAINT, since=since)
        return moved

    def done(self) -> None:
        """The step that was reached is linked: its boxes are followed from now on."""
        self._last, self._next = self._next, None
        if self._last is not None:
            while self._frames.popleft().info is not self._last.frame.info:
                pass

    def clear(self) -> None:
        """Nothing of the frames until now is wanted any more."""
        self._frames.clear()
        self._last = self._next = None
        self._count = 0
