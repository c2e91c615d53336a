"""The arrays that stages hand to each other. R rows, K support rows, D feature width, P = N_b + 1 cached modules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float, Half, Index

if TYPE_CHECKING:
    from rdn_engine.host.refinement import Refinement


Kept = Float | Half
"""Rows as a ring keeps them."""


def single(rows: Kept) -> Float:
    """Kept rows in float32.

    Args:
        rows: [n, D].

    Returns:
        [n, D]; float32 rows are the same array.
    """
    return cpu.widen(rows) if rows.dtype == np.float16 else rows  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class EncodedFrame:
    """What the encoder makes of one frame; the support proposals are the first rows of the reference proposals."""

    boxes: Float
    """[n, 4] xyxy, network-input pixels, best objectness first; n <= N"""
    objectness: Float
    """[n] in 0..1"""
    features: Float
    """[n, D] after the RoI FC and its ReLU; for cosine_score [n, 2 D], of the class branch and of the box branch"""
    query: Float
    """[n, D] query of the first relation module applied to the reference; [n, 0] where there is none"""
    keys: Float
    """[P, k, D] of the first k = min(n, K) proposals, modules rel_0..rel_{P-1}"""
    values: Float
    """[P, k, D] values, projected, without their bias"""
    refine_query: Float
    """[k, D] query of the refinement; [k, 0] without the advanced stage"""
    class_scores: Float | None = None
    """[n, C] of the detector itself, without the objectness, for cosine_score; None where no stage reads them"""


def head(frame: EncodedFrame, num_reference: int, num_support: int) -> EncodedFrame:
    """What the encoder would have given for smaller N and K: both are the first ones in the same order.

    Args:
        frame: encoded with an N and a K that are no smaller.
        num_reference, num_support: N and K that are wanted.
    """
    n, k = num_reference, num_support
    return replace(
        frame,
        boxes=frame.boxes[:n],
        objectness=frame.objectness[:n],
        features=frame.features[:n],
        query=frame.query[:n],
        keys=frame.keys[:, :k],
        values=frame.values[:, :k],
        refine_query=frame.refine_query[:k],
        class_scores=None if frame.class_scores is None else frame.class_scores[:n],
    )


@dataclass(frozen=True)
class SupportPool:
    """The window of one reference frame, in place in the stream's ring: slots of C rows, R = slots x C.

    `rows` indexes the first axis of the storage arrays. A frame that an edge rule repeats appears once, with its
    `multiplicity`.
    """

    boxes: Float
    """[R, 4] network-input pixels"""
    features: Kept
    """[R, D]"""
    keys: cpu.Packed
    """[P, slots, M, C / 16, d, 16] panels of 16 proposals, the layout of cpu.SupportBank, bfloat16 too"""
    values: cpu.Packed
    """[P, slots, M, C, d]"""
    key_length: Float
    """[P, slots, M]"""
    refine_query: Kept
    """[R, D]"""
    slots: Index
    """[F] frames of the window, oldest first"""
    counts: Index
    """[F] support proposals of each: the first rows of its slot"""
    repeats: Float
    """[F] how often each frame counts"""
    slot_counts: Index
    """[slots] support proposals of whatever frame a slot holds, with the K of this window"""
    advanced_rows: Index
    """[A] support proposals that the refinement takes, a subset of `rows`"""
    advanced_multiplicity: Float
    """[A]"""
    refinement: Refinement
    """Sums of the refinement, the stream's own"""

    @property
    def rows(self) -> Index:
        """[S] support proposals of the window, oldest frame first"""
        starts = np.cumsum(self.counts) - self.counts
        room = len(self.boxes) // len(self.slot_counts)
        rows: Index = np.arange(self.counts.sum()) + np.repeat(self.slots * room - starts, self.counts)
        return rows

    @property
    def multiplicity(self) -> Float:
        """[S] how often each counts, 1 or more"""
        return np.repeat(self.repeats, self.counts)

    def bank(self, module: int) -> cpu.SupportBank:
        """What the kernels read of a cached module.

        Args:
            module: 0..P - 1.
        """
        boxes = self.boxes.reshape(len(self.slot_counts), -1, 4)
        return cpu.SupportBank(self.keys[module], self.values[module], self.key_length[module], boxes)

    def queries(self, rows: Index) -> cpu.QueryRows:
        """Support proposals that look at others: query of the refinement, boxes, features.

        Args:
            rows: [n] in 0..R - 1.
        """
        return cpu.QueryRows(single(self.refine_query[rows]), self.boxes[rows], single(self.features[rows]))

    def plain(self) -> tuple[Float, Float]:
        """Keys and values as the model's graphs have them; of a ring that is not bfloat16.

        Returns:
            [P, S, D] each, for `rows`.
        """
        cached, _, heads, room, head_dim = self.values.shape
        slot, column = self.rows // room, self.rows % room
        keys = self.keys[:, slot, :, column // cpu.PANEL, :, column % cpu.PANEL]  # [S, P, M, d]
        values = self.values[:, slot, :, column]
        both = (
            np.asarray(array.swapaxes(0, 1).reshape(cached, len(slot), heads * head_dim), np.float32)
            for array in (keys, values)
        )
        return next(both), next(both)


@dataclass(frozen=True)
class RelationOutput:
    """What the relation stage makes of the n reference proposals of one frame."""

    logits: Float
    """[n, C + 1] background first"""
    deltas: Float
    """[n, 4 (C + 1)]"""
    omega: Float | None
    """[n, W] weights of the last basic module, averaged over heads, for the rows asked for; None when not asked"""
    scores: Float | None = None
    """[n, C] in 0..1 where they are given in place of logits and deltas, which are then empty: the boxes stay"""

    @classmethod
    def of_no_rows(cls, num_logits: int, omega_rows: tuple[int, int] | None) -> RelationOutput:
        """What a frame without proposals gives, for the executors that would have nothing to compute.

        Args:
            num_logits: C + 1.
            omega_rows: first support proposal of the window that omega is asked for, and one past the last; None asks
                for none.
        """
        omega = np.zeros((0, omega_rows[1] - omega_rows[0]), np.float32) if omega_rows is not None else None
        return cls(np.zeros((0, num_logits), np.float32), np.zeros((0, 4 * num_logits), np.float32), omega)
