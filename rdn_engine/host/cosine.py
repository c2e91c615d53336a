"""YOLOV's relation of proposals over a window: cosine attention with the score on the key, and a masked second round.

DESIGN section 2, Cosine score attention. What depends on one proposal alone is computed once, when its frame is
appended; of the attention of all rows of a window only what changed since the last window.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings
from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import Float


class Related(NamedTuple):
    """What `CosineWindow.relate` makes of a frame's n proposals."""

    out: Float
    """[n, 4 D]"""
    omega: Float | None
    """[n, m] mean of both attentions over heads, for the m proposals of the frame asked for; None when not asked"""


class Stages(NamedTuple):
    """What `CosineWindow.stages` shows of a frame."""

    x: Float
    """[n, 2 D] X, then V: the first round beside the values"""
    attention: Float
    """[n, S] mean of both attentions over heads"""
    weights: Float
    """[n, S] of the second round; zeros of a row that keeps its own"""
    out: Float
    """[n, 4 D]"""


class CosineWindow:
    """The memory of one stream and one branch: proposals of frames, and the attention of each of them over a window.

    Fixed arrays for `frames` + 1 frames: the one that has just left a window stays, so that its part of running sums
    can be taken back. Nothing here grows while a stream runs.
    """

    def __init__(self, branch: CosineBranch, *, frames: int, proposals: int) -> None:
        """Room for the frames; none is held yet.

        Args:
            branch: weights, shared by all streams.
            frames: largest number of frames of a window, the reference frame included, 1 or more.
            proposals: largest number of proposals of a frame, 1 or more.
        """
        if frames < 1 or proposals < 1:
            raise ConfigError(f"window of {frames} frames of {proposals} proposals; wanted 1 or more of both")
        settings = branch.settings
        self._branch, self._most = branch, proposals
        self._slots, self._room = frames + 1, round_up(proposals, cpu.PANEL)
        self._bank, self._sums = cpu.empty_cosine(
            self._slots,
            room=self._room,
            heads=settings.heads,
            head_dim=settings.head_room,
            masks=len(settings.thresholds),
        )
        self._counts = np.zeros(self._slots, np.int64)  # proposals of the frame in a slot
        self._summed = np.zeros(self._slots, np.int64)  # those of them that sums hold
        self._included = np.zeros((self._slots, self._slots), np.int8)  # whether a slot's rows have summed another
        self._slot_of: dict[int, int] = {}  # by frame, oldest first
        self.newest = -1
        """Number of the last frame appended; -1 after `clear`."""

    @staticmethod
    def nbytes_for(settings: CosineSettings, *, frames: int, proposals: int) -> int:
        """`nbytes` of a window before there is one.

        Args:
            settings, frames, proposals: as of the window.
        """
        slots, room, heads = frames + 1, round_up(proposals, cpu.PANEL), settings.heads
        width, masks = heads * settings.head_room, len(settings.thresholds)
        floats = (2 + 2 + 1 + 2 * masks) * width
        doubles = 2 * width + 2 * 2 * heads
        return slots * room * (4 * floats + 8 * doubles) + slots * (slots + 16)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        own = (self._counts, self._summed, self._included)
        return sum(array.nbytes for array in (*self._bank, *self._sums, *own))

    @property
    def held(self) -> list[int]:
        """Frames that a window may have, oldest first."""
        return list(self._slot_of)

    def clear(self) -> None:
        """Forget every frame; the next one appended is frame 0."""
        self._slot_of.clear()
        self._included[:] = 0
        self.newest = -1

    def keep(self, frames: Collection[int]) -> None:
        """Forget all frames but some; without it the oldest makes room for a new one.

        Args:
            frames: that stay; those not held are ignored.
        """
        wanted = set(frames)
        self._slot_of = {frame: slot for frame, slot in self._slot_of.items() if frame in wanted}

    def append(self, features_cls: Float, features_reg: Float, confidence: Float, objectness: Float) -> int:
        """Project a frame's proposals, over the oldest frame where all slots are taken.

        Args:
            features_cls: [n, D] descriptions for the class, n at most `proposals`.
            features_reg: [n, D] for the box.
            confidence: [n] of the best class, in 0..1.
            objectness: [n] in 0..1.

        Returns:
            The number of the frame, from 0 since the last `clear`.

        Raises:
            BundleError: for arrays of another shape, numbers that are not finite, scores outside 0..1; nothing changed.
        """
        rows, settings = len(confidence), self._branch.settings
        self._check("features_cls", features_cls, (rows, settings.dim))
        self._check("features_reg", features_reg, (rows, settings.dim))
        for name, scores in (("confidence", confidence), ("objectness", objectness)):
            self._check(name, scores, (rows,))
            if scores.max(initial=0) > 1 or scores.min(initial=0) < 0:
                raise BundleError(f"{name} lies in {scores.min():g}..{scores.max():g}; wanted scores in 0..1")
        projected = self._branch.project(features_cls, features_reg)
        on_reg = objectness if settings.objectness_on_key else np.ones_like(objectness)
        slot = self._free_slot()
        self._included[slot] = 0
        self._included[self._included[:, slot] != 0] = 0
        of_reg = settings.values == "reg"
        cpu.pack_cosine(projected, (confidence, on_reg), self._bank, slot=slot, values_of_reg=of_reg)
        self._counts[slot] = rows
        self.newest += 1
        self._slot_of[self.newest] = slot
        return self.newest

    def _check(self, name: str, array: Float, shape: tuple[int, ...]) -> None:
        if array.shape != shape or array.dtype != np.float32 or len(array) > self._most:
            wanted = f"float32 {list(shape)} with at most {self._most} rows"
            raise BundleError(f"{name} is {array.dtype} {list(array.shape)}; wanted {wanted}")
        if not np.isfinite(array).all():
            raise BundleError(f"{name} has a number that is not finite; wanted finite numbers")

    def _free_slot(self) -> int:
        if len(self._slot_of) == self._slots:
            return self._slot_of.pop(next(iter(self._slot_of)))
        taken = set(self._slot_of.values())
        return next(slot for slot in range(self._slots) if slot not in taken)

    def relate(
        self, reference: int, frames: Sequence[int], most: int | None = None, linked: int | None = None
    ) -> Related:
        """Both rounds of a frame's proposals over a window, and the linear layers.

        Args:
            reference: number of the frame.
            frames: of the window in any order, distinct, `reference` among them; at most as many as the memory is for.
            most: only so many proposals of every frame, its first; None: all.
            linked: frame of the window for whose proposals the weights are wanted; None: of none.

        Returns:
            Of the reference frame's proposals.

        Raises:
            ConfigError: for frames that are not held, or not as above.
        """
        found = self._average(reference, frames, most, linked)
        return Related(self._branch.finish(found.out), found.omega)

    def stages(self, reference: int, frames: Sequence[int], most: int | None = None) -> Stages:
        """What `relate` computes, stage by stage, for tests.

        Args:
            reference, frames, most: as of `relate`; the columns of S are in the order of `frames`.
        """
        found, settings = self._average(reference, frames, most, whole=True), self._branch.settings
        assert found.omega is not None
        apart = found.out.reshape(len(found.out), 4, settings.heads, settings.head_room)[
            ..., : settings.dim // settings.heads
        ]
        x = np.ascontiguousarray(apart[:, 2:]).reshape(len(apart), 2 * settings.dim)
        return Stages(x, found.omega, found.weights, self._branch.finish(found.out))

    def _average(
        self, reference: int, frames: Sequence[int], most: int | None, linked: int | None = None, *, whole: bool = False
    ) -> cpu.CosineAverage:
        """whole: every weight is wanted."""
        of = [self._slot_of.get(frame, -1) for frame in frames]
        if -1 in of or reference not in frames or len(set(of)) != len(of):
            raise ConfigError(
                f"window {list(frames)} of frame {reference}; wanted distinct frames, {reference} among them, of those "
                f"held: {self.held}"
            )
        if linked is not None and linked not in frames:
            raise ConfigError(f"weights for frame {linked} of the window {list(frames)}; wanted one of its frames")
        slots = np.array(of, np.int64)
        cpu.cosine_refine(
            slots,
            self._counts if most is None else np.minimum(self._counts, most),
            bank=self._bank,
            sums=self._sums,
            summed=self._summed,
            included=self._included,
            threads=self._branch.threads,
        )
        slot, counts = self._slot_of[reference], self._summed[slots]
        shown = None
        if whole:
            shown = 0, int(counts.sum())
        elif linked is not None:
            place = list(frames).index(linked)
            shown = int(counts[:place].sum()), int(counts[: place + 1].sum())
        return cpu.cosine_average(
            slot,
            int(self._summed[slot]),
            bank=self._bank,
            sums=self._sums,
            slots=slots,
            counts=counts,
            thresholds=self._branch.settings.thresholds,
            omega_range=shown,
            whole=whole,
            threads=self._branch.threads,
        )
