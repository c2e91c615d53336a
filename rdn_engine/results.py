"""What comes out of a stream for one frame, and its other shapes: JSON, COCO, supervision, torchvision."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rdn_engine.capture import Capture
from rdn_engine.errors import BackendUnavailable, ConfigError, ResultError
from rdn_engine.plain import check, from_plain, shown

if TYPE_CHECKING:
    import supervision
    import torch


Basis = Literal["encoded", "still", "interpolated", "extrapolated"]
"""What a result comes from: `encoded`, its frame's own pixels. `still`: the encoded frame before, from which no block
differed by more than a threshold. `interpolated`: the steps on both sides. `extrapolated`: those before it,
and what it shows of their boxes (docs/interval.md)"""

NOBODY = -1
"""`tracker_id` of a box that has no identity of its own (docs/linking.md)"""


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
    basis: Basis = "encoded"
    """What the boxes come from"""
    capture: Capture | None = None
    """How the frame was come by; None where it comes from no live source"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections(FrameFacts):
    """The detections of one frame, highest confidence first; n may be 0.

    Raises:
        ResultError: where the lengths of the arrays differ or `xyxy` is not [n, 4].
    """

    xyxy: NDArray[np.float32]
    """[n, 4] corners in pixels of the frame"""
    confidence: NDArray[np.float32]
    """[n] in 0..1"""
    class_id: NDArray[np.int64]
    """[n] index into `class_names`; 0 is the first foreground class"""
    tracker_id: NDArray[np.int64] | None
    """[n] the same number along a linked path, or with `link_gap` of one object, and then NOBODY of boxes that are no
    object; None where boxes were not linked"""

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        ids = self.confidence if self.tracker_id is None else self.tracker_id
        lengths = (self.xyxy.shape, self.confidence.shape, self.class_id.shape, ids.shape)
        if lengths != ((n, 4), (n,), (n,), (n,)):
            raise ResultError(
                f"xyxy, confidence, class_id, tracker_id have shapes {lengths}; wanted (n, 4), (n,), (n,), (n,)"
            )

    def __len__(self) -> int:
        return len(self.xyxy)

    def to_dict(self) -> dict[str, Any]:
        """Turn the result into one JSONL line (docs/jsonl.md) of plain numbers, strings and lists.

        Returns:
            The facts of the frame and `detections`, a row each. Boxes and confidences are written with as few digits as
            tell one float32 from the next, so that a file is scored as the results themselves; seconds are rounded to 6
            decimals.
        """
        ids = [None] * len(self) if self.tracker_id is None else self.tracker_id.tolist()
        rows = zip(_shortest(self.xyxy), _shortest(self.confidence), self.class_id.tolist(), ids, strict=True)
        detections = []
        for box, confidence, class_id, tracker_id in rows:
            row: dict[str, Any] = {
                "xyxy": box,
                "confidence": confidence,
                "class_id": class_id,
                "class_name": self.class_names[class_id],
            }
            if tracker_id is not None:
                row["tracker_id"] = tracker_id
            detections.append(row)
        return {
            **{name: getattr(self, name) for name in _PLAIN_FACTS},
            "pts": None if self.pts is None else round(self.pts, 6),
            **_captured(self.capture),
            "detections": detections,
        }

    @property
    def encoded(self) -> bool:
        """Whether the frame itself was encoded."""
        return self.basis == "encoded"

    @classmethod
    def from_dict(cls, data: dict[str, Any], class_names: tuple[str, ...] | None = None) -> Detections:
        """The inverse of `to_dict`: the same boxes and confidences to the last bit.

        Args:
            data: one line of docs/jsonl.md, parsed.
            class_names: the model's. A line names only the classes it holds: with None those are named as there, and
                those below them by their number. Fields that are not of the format are ignored.

        Raises:
            ResultError: names the field that is missing or wrong, what it holds and what was wanted.
        """
        try:
            return cls._from_line(data, class_names)
        except ConfigError as error:
            raise ResultError(f"{error} (docs/jsonl.md)") from error

    @classmethod
    def _from_line(cls, data: object, class_names: tuple[str, ...] | None) -> Detections:
        line = _known(data, (*_PLAIN_FACTS, "capture", "detections"), "line")
        if line.get("capture") is not None:
            line["capture"] = _known(line["capture"], _PLAIN_CAPTURE, "line.capture")
        rows = _rows(line.pop("detections", None), class_names)
        if class_names is None:
            named = {row.class_id: row.class_name for row in rows}
            class_names = tuple(named.get(c, str(c)) for c in range(max(named, default=-1) + 1))
        tracked = bool(rows) and rows[0].tracker_id is not None
        facts = from_plain(FrameFacts, {**line, "class_names": class_names}, "line")
        for fact in fields(FrameFacts):
            value = getattr(facts, fact.name)
            ok = not isinstance(value, int) or 0 <= value < _INT64
            check(ok, f"line.{fact.name}", value, "0 or more, below 2^63")
        return cls(
            xyxy=np.asarray([row.xyxy for row in rows], np.float32).reshape(-1, 4),
            confidence=np.asarray([row.confidence for row in rows], np.float32),
            class_id=np.asarray([row.class_id for row in rows], np.int64),
            tracker_id=np.asarray([row.tracker_id for row in rows], np.int64) if tracked else None,
            **vars(facts),
        )

    def to_coco(self, image_id: int, category_ids: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """COCO result records, ready for pycocotools' `loadRes`, in the terms of our annotations (docs/datasets.md).

        Args:
            image_id: what the annotations call the frame.
            category_ids: name of a class -> what the annotations call it; None where they count the model's classes
                from 1.

        Returns:
            A record for each detection. Its `bbox` is [x, y, w, h] in pixels of the frame with w = x2 - x1 + 1, since
            x2 is the last column that the box covers.

        Raises:
            ResultError: for a class that `category_ids` does not name.
        """
        if category_ids is None:
            category_ids = {name: c for c, name in enumerate(self.class_names, 1)}
        unknown = {self.class_names[c] for c in self.class_id.tolist()} - category_ids.keys()
        if unknown:
            raise ResultError(f"category_ids are {dict(category_ids)}; wanted one of {sorted(unknown)} too")
        ids = [category_ids.get(name, 0) for name in self.class_names]
        return [
            {
                "image_id": image_id,
                "category_id": ids[class_id],
                "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
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


_PLAIN_FACTS = tuple(field.name for field in fields(FrameFacts) if field.name not in ("class_names", "capture"))
_PLAIN_CAPTURE = tuple(field.name for field in fields(Capture) if field.name != "clock")
_MOST_CLASSES = 2**16
"""Of a line that is read without the model's names, which are made up to the largest number met."""
_FAR = 1e9  # pixels
_INT64 = 2**63


@dataclass(frozen=True)
class _Row:
    """One of a line's detections."""

    xyxy: tuple[float, float, float, float]
    confidence: float
    class_id: int
    class_name: str
    tracker_id: int | None = None


_ROW = tuple(field.name for field in fields(_Row))


def _shortest(values: NDArray[np.float32]) -> list[Any]:
    """float32 as JSON writes them: the shortest decimals that only this one is nearest to."""
    shortest: list[Any] = values.astype(np.float32).astype(str).astype(np.float64).tolist()
    return shortest


def _captured(capture: Capture | None) -> dict[str, Any]:
    """The part of a line that only frames of live sources have; a monotonic clock means nothing to other processes."""
    if capture is None:
        return {}
    facts = {name: getattr(capture, name) for name in _PLAIN_CAPTURE}
    return {"capture": facts | {"time": round(capture.time, 3)}}


def _known(data: object, names: Iterable[str], path: str) -> dict[str, Any]:
    """Those of the fields that the format has, so that a line may carry more."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is {shown(data):.80}; wanted a JSON object")
    return {name: data[name] for name in names if name in data}


def _import(name: str, remedy: str) -> types.ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailable(f"this conversion needs {name}, which is not installed ({error}); {remedy}") from error


def _rows(found: object, class_names: tuple[str, ...] | None) -> list[_Row]:
    """The detections of a line, one by one and with each other: ConfigError names the field."""
    check(isinstance(found, list), "line.detections", found, "a list")
    rows: list[_Row] = []
    named = dict(enumerate(class_names or ()))
    most = _MOST_CLASSES if class_names is None else len(class_names)
    for i, data in enumerate(cast("list[object]", found)):
        at = f"line.detections[{i}]"
        row = from_plain(_Row, _known(data, _ROW, at), at)
        rows.append(row)
        check(0 <= row.class_id < most, f"{at}.class_id", row.class_id, f"0..{most - 1}")
        name = named.setdefault(row.class_id, row.class_name)
        check(row.class_name == name, f"{at}.class_name", row.class_name, f"{name!r}, class {row.class_id}'s name")
        check(0 <= row.confidence <= 1, f"{at}.confidence", row.confidence, "0..1")
        check(max(map(abs, row.xyxy)) < _FAR, f"{at}.xyxy", row.xyxy, f"pixels, nearer than {_FAR:g}")
        tracked = rows[0].tracker_id is not None
        others = "as others of its line"
        wanted = f"a whole number from {NOBODY}, {others} have" if tracked else f"none, {others}"
        ok = (row.tracker_id is not None) == tracked and NOBODY <= (row.tracker_id or 0) < _INT64
        check(ok, f"{at}.tracker_id", row.tracker_id, wanted)
    return rows
