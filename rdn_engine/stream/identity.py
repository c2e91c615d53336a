"""Objects that are lost for a while and come back: who is who, by where they should be and by how they look.

A *sighting* is a box whose confidence, after rescoring, is above SURE, and that no better one of its class overlaps by
an IoU above DOUBLE: a second box on one object is not a second object. In every frame the sightings are paired with the
objects that were sighted in the G + 1 frames before, one to one, so that the sum of the gains is largest (Hungarian
method). A pair of one class gains

    2 - d / limit + cos + TUBE                  d < limit = min(NEAR + DRIFT (g - 1), FAR)

d is the distance of the sighting's centre from where the object should be, in sides of a box: the geometric mean of the
two sizes, a size being the square root of an area. The object should be where its mean velocity takes it in
the g frames since it was sighted, at most COAST of them. cos is the cosine of the two features that the detector has of
them anyway: the sighting's, and the object's running mean; 0 without features. TUBE counts where the tube of linked
boxes says the same. A pair whose sizes differ by more than RATIO is none, nor, after a gap, one that looks different.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Double, Float, Index
from rdn_engine.results import Detections

LOOKS = 64
"""The best boxes of a frame, so many at most, are told from others by their features too"""
MOST_LOST = 64
"""Objects that may be lost at a time; of more, those that were lost first are given up"""
SURE = 0.3
"""Confidence after rescoring of a box that is a sighting of its object"""
NEAR = 0.6
DRIFT = 0.06
FAR = 2.0
"""A sighting is that near to where its object should be, in sides of a box, and DRIFT farther for every frame lost"""
RATIO = 2.0
"""Sizes of one object in two sightings differ by no larger factor"""
ALIKE = 0.4
"""Least cosine of the features of one object before and after a gap"""
COAST = 12
"""Frames that a lost object goes on with its velocity"""
TUBE = 0.5
"""What a pair gains that is one tube"""
DOUBLE = 0.3
"""IoU above which a box lies on the object of a better one of its class"""
_PACE = 0.15  # part of the newest velocity in the mean
_LOOK = 0.2  # part of the newest feature in the mean


@dataclass(frozen=True)
class _Objects:
    """k objects, or k sightings of them."""

    ids: Index
    """[k]"""
    labels: Index
    """[k] class"""
    time: Index
    """[k] frame of the latest sighting"""
    centre: Double
    """[k, 2] pixels of the frame"""
    size: Double
    """[k] square root of the area, pixels"""
    way: Double
    """[k, 2] weighted sum of velocities, pixels a frame"""
    weight: Double
    """[k] of that sum, in 0..1; 0 of what was sighted once"""
    looked: NDArray[np.bool_]
    """[k] whether its looks are known"""
    looks: Float
    """[k, D] features of length 1; 0 where they are not known"""

    def __getitem__(self, rows: Index | NDArray[np.bool_]) -> _Objects:
        return _Objects(*(array[rows] for array in vars(self).values()))

    def with_(self, others: _Objects) -> _Objects:
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Objects(*(np.concatenate(pair) for pair in pairs))


def looks_of(features: Float) -> Float:
    """Features as identities are told by: of length 1.

    Args:
        features: [m, D].

    Returns:
        [m, D]; zeros stay zeros.
    """
    length = np.sqrt(np.einsum("ij,ij->i", features, features))
    scaled: Float = features / np.maximum(length, np.float32(1e-12))[:, None]
    return scaled


class Identities:
    """The objects of one epoch. Memory is bounded by the boxes of a frame and MOST_LOST."""

    def __init__(self, numbers: itertools.count[int]) -> None:
        """numbers: gives identities that nobody has."""
        self._numbers = numbers
        self._time = 0
        self._shown: dict[int, int] = {}
        self._objects = _none()

    @property
    def nbytes(self) -> int:
        """Bytes of the objects."""
        return sum(array.nbytes for array in vars(self._objects).values())

    def step(self, found: Detections, confidence: Double, tubes: Index, looks: Float | None, gap: int) -> Index:
        """Name the boxes of the next frame.

        Args:
            found: the frame's boxes and their classes.
            confidence: [n] of each, after rescoring.
            tubes: [n] the tube of each; below 0 of a box that has none, which is left out.
            looks: [m, D] of the first m boxes, of length 1; None without.
            gap: G, frames that an object may be lost.

        Returns:
            [n] the identity of each; that of its tube where nothing else is known.
        """
        self._time += 1
        self._forget(gap, 0 if looks is None else looks.shape[1])
        rows = _single(found, confidence, np.flatnonzero((confidence > SURE) & (tubes >= 0)))
        seen = self._sightings(found, rows, looks)
        before = np.array([self._shown.get(tube, -1) for tube in tubes.tolist()], np.int64)
        column = cpu.assign(self._gains(seen, before[rows]))
        ids = np.full(len(tubes), -1)
        paired, fresh = np.flatnonzero(column >= 0), np.flatnonzero(column < 0)
        ids[rows[paired]] = self._objects.ids[column[paired]]
        self._name_rest(ids, before, tubes, rows[fresh])
        self._update(seen, paired, column[paired], fresh, ids[rows[fresh]])
        self._shown = dict(zip(tubes.tolist(), ids.tolist(), strict=True))
        return ids

    def _forget(self, gap: int, width: int) -> None:
        """Those that are lost for longer, or that are too many."""
        objects = self._objects
        kept = np.flatnonzero(self._time - objects.time - 1 <= gap)
        lost = kept[objects.time[kept] < self._time - 1]
        if len(lost) > MOST_LOST:
            gone = lost[np.argsort(objects.time[lost], kind="stable")[: len(lost) - MOST_LOST]]
            kept = np.setdiff1d(kept, gone)
        if len(kept) < len(objects.ids):
            objects = objects[kept]
        if width and objects.looks.shape[1] != width:
            n = len(objects.ids)
            objects = replace(objects, looked=np.zeros(n, bool), looks=np.zeros((n, width), np.float32))
        self._objects = objects

    def _sightings(self, found: Detections, rows: Index, looks: Float | None) -> _Objects:
        boxes = found.xyxy[rows].astype(np.float64)
        n, width = len(rows), self._objects.looks.shape[1]
        looked = rows < (0 if looks is None else len(looks))
        if looks is not None and looked.all():
            look = looks[rows]
        else:
            look = np.zeros((n, width), np.float32)
            if looks is not None:
                look[looked] = looks[rows[looked]]
        return _Objects(
            ids=np.full(n, -1),
            labels=found.class_id[rows],
            time=np.full(n, self._time),
            centre=(boxes[:, :2] + boxes[:, 2:]) / 2,
            size=np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2] + 1).prod(1), 1)),
            way=np.zeros((n, 2)),
            weight=np.zeros(n),
            looked=looked,
            looks=look,
        )

    def _gains(self, seen: _Objects, before: Index) -> Double:
        """[sightings, objects] what each pair gains; 0 of those that cannot be one object."""
        known = self._objects
        gap = self._time - known.time
        velocity = known.way / np.maximum(known.weight, 1e-9)[:, None]
        where = known.centre + velocity * np.minimum(gap, COAST)[:, None]
        away = seen.centre[:, None] - where[None]
        side = np.sqrt(seen.size[:, None] * known.size)
        part = np.sqrt((away**2).sum(2)) / side / np.minimum(NEAR + DRIFT * (gap - 1), FAR)
        ratio = np.abs(np.log(seen.size)[:, None] - np.log(known.size))
        one_tube = before[:, None] == known.ids
        fits = ((part < 1) & (ratio < np.log(RATIO))) | (one_tube & (gap == 1))
        row, column = np.nonzero(fits & (seen.labels[:, None] == known.labels))
        # Of the pairs that fit so far alone, which are few, and by no library that starts threads.
        alike = np.einsum("ij,ij->i", seen.looks[row], known.looks[column])
        blind = ~(seen.looked[row] & known.looked[column])
        pairs = (alike > ALIKE) | (gap[column] == 1) | blind
        row, column, alike = row[pairs], column[pairs], alike[pairs]
        gain = np.zeros(part.shape)
        gain[row, column] = 2 - np.minimum(part[row, column], 1) + alike + TUBE * one_tube[row, column]
        # A pair that is one stays one, however different its halves look.
        gain[row, column] = np.maximum(gain[row, column], 1e-6)
        return gain

    def _name_rest(self, ids: Index, before: Index, tubes: Index, fresh: Index) -> None:
        """Boxes that are paired with nothing go on with their tube's identity, where it is nobody else's by now."""
        taken, lost = set(ids[ids >= 0].tolist()), set(self._objects.ids.tolist())
        new = set(fresh.tolist())
        for row in np.flatnonzero((ids < 0) & (tubes >= 0)).tolist():
            shown = int(before[row])
            if shown < 0:
                ids[row] = tubes[row]
            elif shown in taken or (row in new and shown in lost):
                ids[row] = next(self._numbers)
            else:
                ids[row] = shown

    def _update(self, seen: _Objects, paired: Index, objects: Index, fresh: Index, fresh_ids: Index) -> None:
        known = self._objects
        gap = (self._time - known.time[objects]).astype(np.float64)[:, None]
        part = 1 - (1 - _PACE) ** gap
        centre = seen.centre[paired]
        known.way[objects] = known.way[objects] * (1 - part) + (centre - known.centre[objects]) / gap * part
        known.weight[objects] = known.weight[objects] * (1 - part[:, 0]) + part[:, 0]
        known.time[objects] = self._time
        known.centre[objects] = centre
        known.size[objects] = (known.size[objects] + seen.size[paired]) / 2
        looked = seen.looked[paired]
        objects, paired = objects[looked], paired[looked]
        rate = np.where(known.looked[objects], np.float32(_LOOK), np.float32(1))[:, None]
        looks = known.looks[objects]
        looks += (seen.looks[paired] - looks) * rate
        known.looks[objects] = looks_of(looks)
        known.looked[objects] = True
        if len(fresh):
            self._objects = known.with_(replace(seen[fresh], ids=fresh_ids))


def _single(found: Detections, confidence: Double, rows: Index) -> Index:
    """Those of `rows`, best first, that no better one of them overlaps: NMS within a class."""
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    boxes, labels = found.xyxy[rows], found.class_id[rows]
    row, other, _ = cpu.overlaps(boxes, labels, other_boxes=boxes, other_classes=labels, limit=DOUBLE)
    double = np.zeros(len(rows), bool)
    better = other < row
    for one, its in zip(row[better].tolist(), other[better].tolist(), strict=True):
        double[one] |= not double[its]
    return rows[~double]


def _none() -> _Objects:
    number, real, pair = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2))
    return _Objects(number, number, number, pair, real, pair, real, np.zeros(0, bool), np.zeros((0, 0), np.float32))
