"""All boxes of a data set, annotated and detected, as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Dataset

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Found(Protocol):
    """The detections of one frame; `rdn_engine.Detections` is one."""

    @property
    def xyxy(self) -> NDArray[np.float32]:
        """[k, 4] pixels of the frame, the last pixel included"""

    @property
    def confidence(self) -> NDArray[np.float32]:
        """[k]"""

    @property
    def class_id(self) -> NDArray[np.int64]:
        """[k] position in the detector's class names"""


_Boxes = TypeVar("_Boxes", bound="_Rows")


@dataclass(frozen=True)
class _Rows:
    image: Int
    """[n] `Frame.id`"""
    label: Int
    """[n] position in the data set's categories"""
    xyxy: Float
    """[n, 4] pixels of the frame, the last pixel included"""
    video: Int
    """[n] `Video.id`"""
    time: Int
    """[n] `Frame.frame_id`: frames since the start of the video"""

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self: _Boxes, rows: Int | Bool) -> _Boxes:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def xywh(self) -> Float:
        """[n, 4] as COCO writes a box: width = x2 - x1 + 1"""
        return np.concatenate([self.xyxy[:, :2], self.xyxy[:, 2:] - self.xyxy[:, :2] + 1], axis=1)

    def area(self) -> Float:
        """[n] pixels"""
        area: Float = self.xywh()[:, 2:].prod(axis=1)
        return area


@dataclass(frozen=True)
class Truth(_Rows):
    """Annotated boxes; row i is `dataset.annotations[i]`."""

    ignore: Bool
    """[n] a region in which a detection is neither right nor wrong"""
    instance: Int
    """[n] `Annotation.instance_id`; -1 where nobody followed the object"""

    @classmethod
    def of(cls, dataset: Dataset) -> Truth:
        """All annotated boxes of a data set as columns.

        Args:
            dataset: to score against.

        Returns:
            One row an annotation, ignore regions included.

        Raises:
            DatasetError: the data set has no object, an unknown class, or two classes of one name.
        """
        names = dataset.class_names
        if len(set(names)) != len(names):
            raise DatasetError(f"the data set has the classes {names}; wanted distinct names")
        label_of = {c.id: i for i, c in enumerate(dataset.categories)}
        frames = {f.id: f for f in dataset.frames}
        rows = dataset.annotations
        unknown = sorted({a.category_id for a in rows} - set(label_of))
        if unknown:
            raise DatasetError(f"annotations are of the categories {unknown}; wanted some of {sorted(label_of)}")
        if all(a.ignore for a in rows):
            raise DatasetError(
                f"the data set has {len(dataset.frames)} frames and no annotated object besides {len(rows)} ignore "
                "regions; wanted one or more"
            )
        return cls(
            image=np.array([a.image_id for a in rows], np.int64),
            label=np.array([label_of[a.category_id] for a in rows], np.int64),
            xyxy=np.array([a.xyxy for a in rows], np.float64).reshape(-1, 4),
            ignore=np.array([a.ignore for a in rows], bool),
            instance=np.array([-1 if a.instance_id is None else a.instance_id for a in rows], np.int64),
            video=np.array([frames[a.image_id].video_id for a in rows], np.int64),
            time=np.array([frames[a.image_id].frame_id for a in rows], np.int64),
        )


@dataclass(frozen=True)
class Detected(_Rows):
    """Detected boxes, in the order of the data set's frames, and of the detector within a frame."""

    confidence: Float
    """[n]"""
    track: Int
    """[n] the same number along a linked path; -1 of a box without an identity, as all are that were not linked"""

    @classmethod
    def of(cls, found: Mapping[int, Found], dataset: Dataset, class_names: tuple[str, ...]) -> Detected:
        """All detections as columns.

        Args:
            found: `Frame.id` -> detections, for every frame.
            dataset: whose labels the rows take.
            class_names: of the detector.

        Returns:
            One row a detection.

        Raises:
            DatasetError: frames or classes are not those of the data set, or a box or confidence is not finite.
        """
        label_of = label_map(dataset, class_names)
        known = {f.id for f in dataset.frames}
        if set(found) != known:
            unknown, missing = sorted(set(found) - known), sorted(known - set(found))
            raise DatasetError(
                f"detections of {len(found)} frames, {len(unknown)} of them unknown {unknown[:5]} and "
                f"{len(missing)} missing {missing[:5]}; wanted those of the data set's {len(known)} frames"
            )
        parts = [found[f.id] for f in dataset.frames]
        counts = [len(p.confidence) for p in parts]
        tracks = [getattr(p, "tracker_id", None) for p in parts]
        rows = cls(
            image=np.repeat([f.id for f in dataset.frames], counts),
            video=np.repeat([f.video_id for f in dataset.frames], counts),
            time=np.repeat([f.frame_id for f in dataset.frames], counts),
            track=np.concatenate([np.full(n, -1) if t is None else t for t, n in zip(tracks, counts, strict=True)]),
            label=label_of[np.concatenate([p.class_id for p in parts]).astype(np.int64)],
            xyxy=np.concatenate([p.xyxy for p in parts]).astype(np.float64).reshape(-1, 4),
            confidence=np.concatenate([p.confidence for p in parts]).astype(np.float64),
        )
        wrong = ~(np.isfinite(rows.xyxy).all(1) & np.isfinite(rows.confidence))
        if wrong.any():
            first = np.flatnonzero(wrong)[0]
            raise DatasetError(
                f"a detection in frame {rows.image[first]} has the box {rows.xyxy[first].tolist()} and the confidence "
                f"{rows.confidence[first]}; wanted finite numbers"
            )
        return rows


def label_map(dataset: Dataset, class_names: tuple[str, ...]) -> Int:
    """The data set's label of each of the detector's classes, which may come in another order.

    Args:
        dataset: whose classes are wanted.
        class_names: of the detector.

    Returns:
        [classes].

    Raises:
        DatasetError: the names are not the same.
    """
    names = dataset.class_names
    lacking, extra = sorted(set(class_names) - set(names)), sorted(set(names) - set(class_names))
    if lacking or extra:
        raise DatasetError(
            f"the detector has {len(class_names)} classes and the data set {len(names)}; only the detector has "
            f"{lacking}, only the data set {extra}; wanted the same names: `training/data/convert.py --classes NAMES` "
            "gives a data set the detector's list of classes"
        )
    return np.array([names.index(name) for name in class_names], np.int64)


def iou(a: Float, b: Float) -> Float:
    """Of all pairs of boxes.

    Args:
        a, b: [n, 4] and [m, 4] in pixels, the last pixel included.

    Returns:
        [n, m] in 0..1; 0 where both together cover nothing.
    """
    return pair_iou(a[:, None], b[None])


def pair_iou(a: Float, b: Float) -> Float:
    """Of boxes one by one.

    Args:
        a, b: [..., 4] in pixels, the last pixel included; their shapes broadcast.

    Returns:
        [...] in 0..1; 0 where both together cover nothing.
    """
    overlap = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1).clip(min=0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1) for boxes in (a, b)]
    union = areas[0] + areas[1] - overlap
    result: Float = np.divide(overlap, union, out=np.zeros_like(union), where=union != 0)
    return result


def instances(truth: Truth) -> tuple[Int, Int, Int]:
    """The objects that somebody followed.

    Args:
        truth: all annotated boxes.

    Returns:
        (video, instance) of each [i, 2]; and of their boxes, ignore regions left out, the row of the former [b] and
        the row of `truth` [b].
    """
    rows = np.flatnonzero((truth.instance >= 0) & ~truth.ignore)
    keys = np.stack([truth.video[rows], truth.instance[rows]], axis=1)
    known, owner = np.unique(keys, axis=0, return_inverse=True)
    return known, owner.ravel(), rows
