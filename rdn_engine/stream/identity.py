"""Objects that are lost for a while and come back: who is who, by where they should be and by how they look.

A box has an identity where it was detected with a confidence above FAINT and no better one of its class overlaps it by
an IoU above DOUBLE: a second box on one object is not a second object, and what a tube alone makes sure may be
anything. All other boxes are NOBODY's. A *sighting* is a box that has an identity and a confidence above SURE after
rescoring. In every frame the sightings are paired with the objects that were sighted in the G + 1 frames before, one to
one, so that the sum of the gains is largest (Hungarian method). A pair of one class gains

    2 - d / limit - SIZE |ln r| + k + TUBE      d < limit = min(NEAR + DRIFT (g - 1), FAR),  1 / RATIO < r < RATIO

d is the distance of the sighting's centre from where the object should be, in sides of a box: the geometric mean of the
two sizes, a size being the square root of an area; r is their ratio. The object should be where its mean velocity takes
it in the g frames since it was sighted; of that velocity GLIDE is left with every frame. k is IN_SIGHT for g = 1, and
after a gap LOOK times the cosine of two features that the detector has anyway, the sighting's and the object's latest;
0 without features. TUBE counts where the tube of linked boxes says the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Double, Float, Index
from rdn_engine.results import NOBODY, Detections

LOOKS = 64
"""The best boxes of a frame, so many at most, are told from others by their features too"""
MOST_LOST = 64
"""Objects that may be lost at a time; of more, those that were lost first are given up"""
SURE = 0.3
"""Confidence after rescoring of a box that is a sighting of its object"""
FAINT = 0.05
"""Confidence, as detected, of a box that has no identity whatever its tube says"""
CLEAR = 0.5
"""Confidence, as detected, from which a sighting that is paired with nothing is a new object"""
NEAR = 0.6
DRIFT = 0.06
FAR = 2.0
"""A sighting is that near to where its object should be, in sides of a box, and DRIFT farther for every frame lost"""
RATIO = 2.0
"""Sizes of one object in two sightings differ by no larger factor"""
SIZE = 0.5
"""What a pair loses by sizes that differ by a factor of e"""
GLIDE = 0.88
"""Part of its velocity that an object has left with every frame in which it is not sighted"""
IN_SIGHT = 0.8
"""What a pair gains whose object was sighted in the frame before"""
LOOK = 0.5
"""What a pair gains after a gap by features that are the same"""
TUBE = 0.5
"""What a pair gains that is one tube"""
DOUBLE = 0.3
"""IoU above which a box lies on the object of a better one of its class"""
_PACE = 0.08  # part of the newest velocity in the mean


@dataclass(frozen=True)
class _Objects:
    """k objects, or k sightings of them."""

    ids: Index
    """[k]"""
    labels: Index
    """[k] class"""
    time: Index
    """[k] frame of the latest sighting"""
    row: Index
    """[k] of the latest sighting in its frame"""
    centre: Double
    """[k, 2] pixels of the frame"""
    size: Double
    """[k] square root of the area, pixels"""
    way: Double
    """[k, 2] weighted sum of velocities, pixels a frame"""
    weight: Double
    """[k] of that sum, in 0..1; 0 of what was sighted once"""

    def __getitem__(self, rows: Index) -> _Objects:
        return _Objects(*(array[rows] for array in vars(self).values()))

    def copy(self) -> _Objects:
        return _Objects(*(array.copy() for array in vars(self).values()))

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

    def __init__(self, names: itertools.count[int]) -> None:
        """names: gives identities that nobody has."""
        self._names = names
        self._time = 0
        self._shown: dict[int, int] = {}
        self._objects = _none()
        self._features: Float | None = None  # of the frame before
        self._looks: dict[int, Float] = {}  # of lost objects, by identity

    def copy(self) -> Identities:
        """One that goes on by itself, with the same source of names."""
        other = Identities(self._names)
        vars(other).update(vars(self))
        # The others are replaced whole.
        other._objects, other._looks = self._objects.copy(), dict(self._looks)
        return other

    @property
    def names(self) -> set[int]:
        """Those that may be given to boxes to come."""
        return {*self._objects.ids.tolist(), *self._shown.values()}

    @property
    def nbytes(self) -> int:
        """Bytes of the objects."""
        features = () if self._features is None else (self._features,)
        return sum(array.nbytes for array in (*vars(self._objects).values(), *self._looks.values(), *features))

    def step(self, found: Detections, confidence: Double, tubes: Index, features: Float | None, gap: int) -> Index:
        """Name the boxes of the next frame.

        Args:
            found: the frame's boxes and their classes, with confidences as detected.
            confidence: [n] of each, after rescoring.
            tubes: [n] the tube of each; below 0 of a box that has none, which is left out.
            features: [m, D] of the first m boxes; None without.
            gap: G, frames that an object may be lost.

        Returns:
            [n] the identity of each, NOBODY of a box that has none; that of its tube where nothing else is known.
        """
        self._time += 1
        self._keep(self._time - self._objects.time - 1 <= gap)
        named = singles(found, confidence, np.flatnonzero((found.confidence > FAINT) & (tubes >= 0)))
        rows = named[confidence[named] > SURE]
        seen = _sightings(found, rows, self._time)
        before = np.array([self._shown.get(tube, -1) for tube in tubes.tolist()], np.int64)
        where = self._whereabouts()
        column = cpu.assign(self._gains(seen, where, before[rows], features))
        ids = np.full(len(tubes), -1)
        paired, fresh = np.flatnonzero(column >= 0), np.flatnonzero(column < 0)
        ids[rows[paired]] = self._objects.ids[column[paired]]
        self._name_rest(ids, before, tubes, rows[fresh])
        self._move(seen[paired], column[paired], where[column[paired]], found.confidence[rows[paired]])
        fresh = fresh[found.confidence[rows[fresh]] > CLEAR]
        if len(fresh):
            self._objects = self._objects.with_(replace(seen[fresh], ids=ids[rows[fresh]]))
        self._lose(features)
        self._shown = dict(zip(tubes.tolist(), ids.tolist(), strict=True))
        shown = np.full(len(tubes), NOBODY)
        shown[named] = ids[named]
        return shown

    def _keep(self, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        if not kept.all():
            for gone in self._objects.ids[~kept].tolist():
                self._looks.pop(gone, None)
            self._objects = self._objects[np.flatnonzero(kept)]

    def _whereabouts(self) -> Double:
        """[objects, 2] centres that they should have now, in pixels of the frame."""
        known = self._objects
        glided = GLIDE * (1 - GLIDE ** (self._time - known.time)) / (1 - GLIDE)
        return known.centre + known.way * (glided / np.maximum(known.weight, 1e-9))[:, None]

    def _gains(self, seen: _Objects, where: Double, before: Index, features: Float | None) -> Double:
        """[sightings, objects] what each pair gains; 0 of those that cannot be one object."""
        known = self._objects
        gains = np.zeros((len(seen.ids), len(known.ids)))
        row, column = np.nonzero(seen.labels[:, None] == known.labels)
        gap = (self._time - known.time)[column]
        away = seen.centre[row] - where[column]
        side = np.sqrt(seen.size[row] * known.size[column])
        part = np.hypot(away[:, 0], away[:, 1]) / side / np.minimum(NEAR + DRIFT * (gap - 1), FAR)
        one_tube = before[row] == known.ids[column]
        goes_on = one_tube & (gap == 1)
        near = np.flatnonzero((part < 1) | goes_on)  # few, so what follows costs little
        row, column = row[near], column[near]
        ratio = np.abs(np.log(seen.size[row] / known.size[column]))
        bonus = np.where(gap[near] == 1, IN_SIGHT, LOOK * self._alike(seen.row[row], column, features))
        gain = 2 - np.minimum(part[near], 1) - SIZE * ratio + bonus + TUBE * one_tube[near]
        # What goes on as a pair is one, however different its halves are.
        fits = (ratio < np.log(RATIO)) | goes_on[near]
        gains[row, column] = np.where(fits, np.maximum(gain, 1e-6), 0)
        return gains

    def _alike(self, rows: Index, objects: Index, features: Float | None) -> Double:
        """[pairs] cosine of the features of a row of the frame and of an object that was lost; 0 where one has none."""
        alike = np.zeros(len(rows))
        if features is None or not self._looks:
            return alike
        names = self._objects.ids[objects].tolist()
        pairs = [k for k, row in enumerate(rows.tolist()) if row < len(features) and names[k] in self._looks]
        if pairs:
            # Pair by pair, which are few, and by no library that starts threads.
            looks = np.stack([self._looks[names[k]] for k in pairs])
            alike[pairs] = np.einsum("ij,ij->i", looks_of(features[rows[pairs]]), looks)
        return alike

    def _name_rest(self, ids: Index, before: Index, tubes: Index, fresh: Index) -> None:
        """Boxes that are paired with nothing go on with their tube's identity, where it is nobody else's by now."""
        taken, known = set(ids[ids >= 0].tolist()), set(self._objects.ids.tolist())
        new = set(fresh.tolist())
        for row in np.flatnonzero((ids < 0) & (tubes >= 0)).tolist():
            shown = int(before[row])
            if shown < 0:
                ids[row] = tubes[row]
            elif shown in taken or (row in new and shown in known):
                ids[row] = next(self._names)
            else:
                ids[row] = shown

    def _move(self, seen: _Objects, objects: Index, where: Double, confidence: Float) -> None:
        """Objects are where they were sighted; a weak sighting of one that was in sight is half believed."""
        known = self._objects
        gap = (self._time - known.time[objects]).astype(np.float64)
        for name in known.ids[objects[gap > 1]].tolist():
            self._looks.pop(name, None)
        belief = np.where(gap == 1, (1 + confidence) / 2, 1)[:, None]
        centre = where + (seen.centre - where) * belief
        part = 1 - (1 - _PACE) ** gap
        velocity = (centre - known.centre[objects]) / gap[:, None]
        known.way[objects] += (velocity - known.way[objects]) * part[:, None]
        known.weight[objects] += (1 - known.weight[objects]) * part
        known.time[objects], known.row[objects] = self._time, seen.row
        known.centre[objects] = centre
        known.size[objects] = (known.size[objects] + seen.size) / 2

    def _lose(self, features: Float | None) -> None:
        """Remember how those look that were sighted in the frame before and not in this one."""
        known = self._objects
        age = self._time - known.time
        if self._features is not None:
            for k in np.flatnonzero((age == 1) & (known.row < len(self._features))).tolist():
                self._looks[int(known.ids[k])] = looks_of(self._features[known.row[k], None])[0]
        self._features = features
        lost = np.flatnonzero(age > 0)
        if len(lost) > MOST_LOST:
            kept = np.ones(len(age), bool)
            kept[lost[np.argsort(known.time[lost], kind="stable")[: len(lost) - MOST_LOST]]] = False
            self._keep(kept)


def _sightings(found: Detections, rows: Index, time: int) -> _Objects:
    boxes, n = found.xyxy[rows].astype(np.float64), len(rows)
    return _Objects(
        ids=np.full(n, -1),
        labels=found.class_id[rows],
        time=np.full(n, time),
        row=rows,
        centre=(boxes[:, :2] + boxes[:, 2:]) / 2,
        size=np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2] + 1).prod(1), 1)),
        way=np.zeros((n, 2)),
        weight=np.zeros(n),
    )


def singles(found: Detections, confidence: Double, rows: Index) -> Index:
    """Boxes that are no second box on a better one's object: NMS within a class, at an IoU of DOUBLE.

    Args:
        found: boxes and their classes.
        confidence: [n] of each.
        rows: which of them are asked about.

    Returns:
        Those of `rows` that remain, best first.
    """
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
    return _Objects(number, number, number, number, pair, real, pair, real)
