"""What comes out of a stream for one frame, and its other shapes: JSON, COCO, supervision, torchvision."""

from __future__ import annotations

import types
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import BackendUnavailable, FrameError

if TYPE_CHECKING:
    import supervision
    import torch


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameFacts:
    """What every result says of its frame, on any machine."""

    class_names: tuple[str, ...]
    """Names of all foreground classes of the model"""
    frame_index: int
    """Position of the frame in its source, from 0"""
    pts: float | None
    """Seconds on the source's clock; None where the source has none"""
    source_id: str
    """What the frame says it comes from, else the stream's name"""
    height: int
    """The frame's, pixels"""
    width: int
    """The frame's, pixels"""
    pool_fill: int
    """Frames in the window that this result was computed from"""
    lookahead: int
    """L, frames: how many later ones the result waited for. `pool_fill` tells how many there were."""
    epoch: int
    """Grows whenever the stream's state was reset; results of two epochs share no frames"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections(FrameFacts):
    """The detections of one frame, highest confidence first; n may be 0.

    Raises:
        FrameError: where the lengths of the arrays differ or `xyxy` is not [n, 4].
    """

    xyxy: NDArray[np.float32]
    """[n, 4] corners in pixels of the frame"""
    confidence: NDArray[np.float32]
    """[n] in 0..1"""
    class_id: NDArray[np.int64]
    """[n] index into `class_names`; 0 is the first foreground class"""
    tracker_id: NDArray[np.int64] | None
    """[n] the same number along a linked path; None where boxes were not linked"""

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        ids = self.confidence if self.tracker_id is None else self.tracker_id
        lengths = (self.xyxy.shape, self.confidence.shape, self.class_id.shape, ids.shape)
        if lengths != ((n, 4), (n,), (n,), (n,)):
            raise FrameError(
                f"xyxy, confidence, class_id, tracker_id have shapes {lengths}; wanted (n, 4), (n,), (n,), (n,)"
            )

    def __len__(self) -> int:
        return len(self.xyxy)

    def to_dict(self) -> dict[str, Any]:
        """Turn the result into one JSONL line (docs/jsonl.md) of plain numbers, strings and lists.

        Returns:
            The facts of the frame and `detections`, a row each. Boxes are rounded to 2 decimals of a pixel, confidences
            and seconds to 6.
        """
        ids = [None] * len(self) if self.tracker_id is None else self.tracker_id.tolist()
        rows = zip(self.xyxy.tolist(), self.confidence.tolist(), self.class_id.tolist(), ids, strict=True)
        detections = []
        for box, confidence, class_id, tracker_id in rows:
            row: dict[str, Any] = {
                "xyxy": [round(v, 2) for v in box],
                "confidence": round(confidence, 6),
                "class_id": class_id,
                "class_name": self.class_names[class_id],
            }
            if tracker_id is not None:
                row["tracker_id"] = tracker_id
            detections.append(row)
        return {
            **{name: getattr(self, name) for name in _PLAIN_FACTS},
            "pts": None if self.pts is None else round(self.pts, 6),
            "detections": detections,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], class_names: tuple[str, ...] | None = None) -> Detections:
        """The inverse of `to_dict`, within its rounding.

        Args:
            data: one line of docs/jsonl.md, parsed.
            class_names: the model's. A line names only the classes it holds: with None those are named as there, and
                those below them by their number.

        Raises:
            KeyError, ValueError: for a line that `to_dict` did not write.
        """
        rows = data["detections"]
        if class_names is None:
            named = {r["class_id"]: r["class_name"] for r in rows}
            class_names = tuple(named.get(c, str(c)) for c in range(max(named, default=-1) + 1))
        tracked = bool(rows) and "tracker_id" in rows[0]
        return cls(
            xyxy=np.asarray([r["xyxy"] for r in rows], np.float32).reshape(-1, 4),
            confidence=np.asarray([r["confidence"] for r in rows], np.float32),
            class_id=np.asarray([r["class_id"] for r in rows], np.int64),
            tracker_id=np.asarray([r["tracker_id"] for r in rows], np.int64) if tracked else None,
            class_names=class_names,
            **{name: data[name] for name in _PLAIN_FACTS},
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO result records, ready for pycocotools' `loadRes`.

        Args:
            image_id: what the annotations call the frame.

        Returns:
            A record for each detection. Its `bbox` is [x, y, w, h] in pixels of the frame with w = x2 - x1; its
            `category_id` is class_id + 1, as COCO counts from 1.
        """
        return [
            {
                "image_id": image_id,
                "category_id": class_id + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": confidence,
            }
            for (x1, y1, x2, y2), confidence, class_id in zip(
                self.xyxy.tolist(), self.confidence.tolist(), self.class_id.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> supervision.Detections:
        """The result as supervision has it.

        Returns:
            The same arrays, not copied, with `data["class_name"]` [n].

        Raises:
            BackendUnavailable: without supervision.
        """
        sv = _import("supervision", "pip install supervision")
        # An empty list would become a float array, and supervision tells text from numbers by the dtype.
        names = np.asarray([self.class_names[c] for c in self.class_id], dtype=np.str_)
        detections: supervision.Detections = sv.Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id,
            tracker_id=self.tracker_id,
            data={"class_name": names},
        )
        return detections

    def to_torchvision(self) -> dict[str, torch.Tensor]:
        """The result as torchvision's detectors give theirs, in tensors of the host.

        Returns:
            `boxes` [n, 4] float32 in pixels of the frame, `labels` [n] int64 = class_id + 1 (0 is the background
            there), `scores` [n] float32.

        Raises:
            BackendUnavailable: without torch.
        """
        torch_ = _import("torch", "pip install torch")
        # Copies: torch takes neither reversed arrays nor, without a warning, read-only ones.
        return {
            "boxes": torch_.from_numpy(self.xyxy.astype(np.float32)),
            "labels": torch_.from_numpy(self.class_id.astype(np.int64) + 1),
            "scores": torch_.from_numpy(self.confidence.astype(np.float32)),
        }


_PLAIN_FACTS = tuple(field.name for field in fields(FrameFacts) if field.name != "class_names")


def _import(name: str, remedy: str) -> types.ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailable(f"this conversion needs {name}, which is not installed ({error}); {remedy}") from error
