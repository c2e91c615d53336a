"""What YOLOV's online head remembers beside its window: earlier results of the same place, and an order of frames."""

from __future__ import annotations

import random

import numpy as np

from rdn_engine.errors import ConfigError
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float


class LocalAverage:
    """The last results of one stream, with which those of a new frame are averaged where boxes overlap.

    Memory is fixed: a ring of `frames` frames.
    """

    def __init__(self, dim: int, *, frames: int = 20, proposals: int, threads: int = 1) -> None:
        """Room for the frames; none is held yet.

        Args:
            dim: channels of a result, 4 D.
            frames: how many are remembered, 1 or more.
            proposals: largest number of a frame.
            threads: bounds the CPU threads of a call.
        """
        if frames < 1 or proposals < 1:
            raise ConfigError(f"local memory of {frames} frames of {proposals} proposals; wanted 1 or more of both")
        self._threads = threads
        self._out = np.zeros((frames, proposals, dim), np.float32)
        self._length = np.zeros((frames, proposals))
        self._boxes = np.zeros((frames, proposals, 4), np.float32)
        self._score = np.zeros((frames, proposals), np.float32)
        self._counts = np.zeros(frames, np.int64)
        self._next = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        return sum(a.nbytes for a in (self._out, self._length, self._boxes, self._score, self._counts))

    @staticmethod
    def nbytes_for(dim: int, *, frames: int = 20, proposals: int) -> int:
        """`nbytes` before there is any.

        Args:
            dim, frames, proposals: as of the memory.
        """
        return frames * (proposals * (4 * dim + 8 + 16 + 4) + 8)

    def clear(self) -> None:
        """Forget every frame."""
        self._counts[:] = 0
        self._next = 0

    def __call__(self, out: Float, boxes: Float, confidence: Float, objectness: Float) -> Float:
        """Average a frame's results with those remembered, then remember them as they came.

        Args:
            out: [n, dim] of `CosineWindow.relate`, n at most `proposals`.
            boxes: [n, 4] network-input pixels.
            confidence: [n] in 0..1.
            objectness: [n] in 0..1.

        Returns:
            [n, dim]; a row whose box overlaps no earlier one is as it came, where the public code makes it NaN.
        """
        averaged = self.average(out, boxes, confidence, objectness).out
        place, n = self._next, len(out)
        self._out[place, :n] = out
        self._length[place, :n] = np.sqrt(np.square(out, dtype=np.float64).sum(1))
        self._boxes[place, :n] = boxes
        self._score[place, :n] = confidence * objectness
        self._counts[place] = n
        self._next = (place + 1) % len(self._counts)
        return averaged

    def average(
        self, out: Float, boxes: Float, confidence: Float, objectness: Float, *, whole: bool = False
    ) -> cpu.LocalAverage:
        """The average alone; nothing is remembered.

        Args:
            out, boxes, confidence, objectness: of the frame, as of a call.
            whole: the weights are wanted too; their columns are in the order of the memory's places, not of time.
        """
        return cpu.local_average(
            out,
            boxes,
            confidence * objectness,
            past=self._out,
            past_length=self._length,
            past_boxes=self._boxes,
            past_score=self._score,
            counts=self._counts,
            whole=whole,
            threads=self._threads,
        )


class ShuffledMemory:
    """The frames that the public online head looks at, in its order: a list that every step shuffles again.

    The generator begins with the same seed each time, so the order is the same in every run.
    """

    def __init__(self, *, frames: int = 31, kept: int = 600) -> None:
        """Nothing is remembered yet.

        Args:
            frames: how many are looked at beside the reference frame, 1 or more.
            kept: how many are remembered, `frames` or more; those that stand first in the shuffled list leave.
        """
        if not 1 <= frames <= kept:
            raise ConfigError(f"memory keeps {kept} frames and gives {frames}; wanted 1 or more, and no more than kept")
        self._frames, self._kept = frames, kept
        self._order: list[int] = []

    def __call__(self) -> list[int] | None:
        """The frames that the next one looks at; None for the first two, which have no relations."""
        if len(self._order) < 2:
            return None
        random.Random(42).shuffle(self._order)
        return self._order[: self._frames]

    def append(self, frame: int) -> list[int]:
        """Remember a frame, after its step.

        Args:
            frame: its number.

        Returns:
            All that are remembered.
        """
        self._order = [*self._order, frame][-self._kept :]
        return list(self._order)

    def clear(self) -> None:
        """Forget every frame."""
        self._order.clear()
