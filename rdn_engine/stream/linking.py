"""Boxes linked along a video: tubes, their identities, and confidences that look along them (paper, section 3.4).

Links (equation 8) join boxes of one class in neighbouring frames:

    S(i, j) = (s_i + s_j + IoU(b_i, b_j)) e^omega_ij          box i of frame t, box j of frame t + 1

omega_ij is the weight that i's proposal gives j's in the last basic module, averaged over heads, where j's is among
the support proposals of frame t + 1 and that frame is in the window of t; otherwise 0, a factor of 1. Look-ahead 0
therefore links without relations. A path (equation 9) gains the sum of its links. The best one is a tube; its boxes
leave, and so on with the rest. The paper's paths run through the whole video; here links need an overlap above
MIN_IOU, so that tubes start and end with their objects.

Rescoring: the paper adds the mean m of the better half of the path's scores to each of its scores s. We take
(s + m) / 2: the same order of boxes, hence the same AP, in 0..1, and unchanged for a box that nothing is linked to.

Seq-NMS (Han et al., 2016), the usual baseline: links above an IoU of 0.5 gain nothing, boxes gain their score, a path
takes the boxes that overlap its own by more than 0.3 away, and its boxes all get the mean score of the path.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rdn_engine.config import Dials, LinkMethod
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu import Double, Float, Index
from rdn_engine.results import NOBODY, Detections
from rdn_engine.stream.identity import Identities
from rdn_engine.stream.links import (
    MOVED_MIN_IOU,
    STAYED_MIN_IOU,
    Linkable,
    LinkedFrame,
    Moved,
    linked,
    moved_boxes,
)

FLOOR = 0.001
"""Boxes above this confidence are linked, whatever the threshold: a tube may lift them over it."""
PAST = 64
"""Scores of a tube that are kept once their frames were given out"""


def detection_threshold(dials: Dials) -> float:
    """The threshold of detection, which is lower where boxes are linked: a tube may lift those below score_threshold.

    Args:
        dials: with `link` and score_threshold.

    Returns:
        Confidence in 0..1; boxes above it are detected.
    """
    return dials.score_threshold if dials.link == "off" else min(dials.score_threshold, FLOOR)


class _Given(NamedTuple):
    """A result that was given out."""

    result: Detections
    rows: Index
    """[n] row among what was found of each of its boxes"""


class _Tubes(NamedTuple):
    """Where the tubes of the frames given out stand: a row for each box of the last such frame."""

    ids: Index
    """[m] names; -1 for a box that left as a rival"""
    gain: Double
    """[m] of the path up to here"""
    past: Float
    """[m, PAST] the latest scores, newest last, NaN before the tube's first"""


_NO_TUBES = _Tubes(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, PAST), np.float32))


class Numbers:
    """What users call identities: the next number when one is first given out, so that faint boxes use none up."""

    def __init__(self) -> None:
        self._given = 0  # the last that somebody has
        self._known: dict[int, int] = {}

    def copy(self) -> Numbers:
        """Others that go on by themselves."""
        other = Numbers()
        other._given, other._known = self._given, dict(self._known)
        return other

    def of(self, names: Index) -> Index:
        """The number of each name, which is a new one where it is asked for the first time.

        Args:
            names: [n] of tubes or objects, or NOBODY.

        Returns:
            [n] numbers, and NOBODY where it stood.
        """
        for name in names.tolist():
            if name != NOBODY and name not in self._known:
                self._given += 1
                self._known[name] = self._given
        return np.array([self._known.get(name, NOBODY) for name in names.tolist()], np.int64)

    def keep(self, names: set[int]) -> None:
        """Forget the numbers of all others, which do not come again."""
        self._known = {name: number for name, number in self._known.items() if name in names}


class BoxLinker:
    """Links the encoded frames of one epoch and gives each out link_delay (D) steps later, over whole tubes where that
    is longer.

    What was given out stays: its tubes go on with their identity, gain and latest scores, and the paths through the
    frames that wait are searched anew from there. Memory is that of D + 1 frames.
    """

    def __init__(self) -> None:
        self._method: LinkMethod = "relations"
        self._waiting: deque[LinkedFrame] = deque()
        self._came: deque[int] = deque()  # the step of each that waits
        self._step = 0
        self._newest: Linkable | None = None
        self._given: _Given | None = None  # the last result, where that is of the last frame that came
        self._tubes = _NO_TUBES
        self._names = itertools.count(1)  # of tubes and objects, most of which nobody ever sees
        self._numbers = Numbers()
        self._over_gaps = False
        self._identities = Identities(self._names)
        self._ready: list[Detections] = []  # given out by a call that failed then

    @property
    def nbytes(self) -> int:
        """Bytes of what waits and of the tubes that may go on."""
        held = [a for f in self._waiting for a in (*vars(f).values(), *vars(f.found).values())]
        held += [*self._tubes, *(self._newest[1:3] if self._newest else ())]
        return self._identities.nbytes + sum(a.nbytes for a in held if isinstance(a, np.ndarray))

    def push(self, frame: Linkable, dials: Dials, moved: Moved | None = None) -> list[Detections]:
        """Take the next frame.

        Another `link` than before ends all tubes, as does a `link_gap` that is 0 now and was not, or was and is not;
        with `off` frames pass as they are. `tracker_id` counts from 1, in the order in which identities are first given
        out, and does not repeat, flushes included.

        Args:
            frame: what was found in it, and what links it to the next one.
            dials: `link`, `link_delay`, `link_gap` and `score_threshold` are read.
            moved: how far the boxes of the frame before it are likely to have moved, those that were found or those
                that were given out: links go from there. Not used where it is of another frame; None where nothing is
                known.

        Returns:
            The frames that are ready, rescored, without what has at most the threshold.
        """
        if dials.link == "off":
            return [*self.flush(dials), frame.found]
        self._begin(dials)
        before, given = self._newest, self._given
        # Dials that were turned leave movements behind of boxes that this linker saw long ago, or never.
        places: list[tuple[Detections, float]] = []
        if before is not None and moved is not None:
            if moved.result is before.found:
                there = moved_boxes(before.found, slice(None), moved.by)
                places = [(there, MOVED_MIN_IOU), (before.found, STAYED_MIN_IOU)]
            elif given is not None and moved.result is given.result:
                places = [(moved_boxes(before.found, given.rows, moved.by), MOVED_MIN_IOU)]
        newest = frame._replace(features=None)
        self._append(linked(before, frame, dials.link, places), dials)
        self._newest = newest
        return self._taken()

    def push_linked(self, frame: LinkedFrame, dials: Dials) -> list[Detections]:
        """Take the next frame, whose links were made elsewhere: by `linked`, to the frame pushed before.

        Args:
            frame: with its links.
            dials: as `push`, with the `link` by which they were made.

        Returns:
            As `push`.
        """
        self._begin(dials)
        self._append(frame, dials)
        return self._taken()

    def pass_over(self, dials: Dials) -> list[Detections]:
        """A step has passed that is not linked, because it shows what the frame before it shows.

        Args:
            dials: as of the frame before it.

        Returns:
            As `push`.
        """
        self._give_out_late(self._step + 1, dials)
        self._step += 1
        return self._taken()

    def _begin(self, dials: Dials) -> None:
        """Give out what another setting than before lets out."""
        assert dials.link != "off"
        setting = dials.link, dials.over_gaps
        if setting != (self._method, self._over_gaps):
            self._end(dials)
        self._method, self._over_gaps = setting

    def _append(self, frame: LinkedFrame, dials: Dials) -> None:
        """Take a frame, all or nothing: one that failed is pushed again."""
        given = self._given
        self._given = None
        self._waiting.append(frame)
        self._came.append(self._step + 1)
        try:
            self._give_out_late(self._step + 1, dials)
        except BaseException:
            self._waiting.pop()
            self._came.pop()
            self._given = given if not self._ready else None
            raise
        self._step += 1

    def _give_out_late(self, step: int, dials: Dials) -> None:
        """Give out the frames that have waited for link_delay steps."""
        while self._waiting and step - self._came[0] >= dials.link_delay:
            self._give_out(1, dials)

    def _taken(self) -> list[Detections]:
        """What was given out, once."""
        ready, self._ready = self._ready, []
        return ready

    def flush(self, dials: Dials) -> list[Detections]:
        """End all tubes.

        Args:
            dials: `link_gap` and `score_threshold` are read.

        Returns:
            The frames that waited, rescored, without what has at most the threshold.
        """
        self._end(dials)
        return self._taken()

    def _end(self, dials: Dials) -> None:
        self._give_out(len(self._waiting), dials)
        self._newest, self._given, self._tubes = None, None, _NO_TUBES
        self._identities = Identities(self._names)
        self._numbers.keep(set())

    def _give_out(self, count: int, dials: Dials) -> None:
        """The first `count` frames that wait, by the paths through all of them; all or none."""
        if not count:
            return
        heads = len(self._tubes.ids)
        starts = np.cumsum([heads, *(len(f.value) for f in self._waiting)])
        path, num_paths = _search(self._tubes, self._waiting)
        head_path, leaving = path[:heads], path[heads : starts[count]]
        ids = self._identify(head_path, leaving, num_paths)
        head = np.full(num_paths + 1, -1)
        head[head_path] = np.arange(heads)
        scores = np.concatenate([f.found.confidence for f in self._waiting])
        mean = self._path_means(path[heads:], scores, leaving, head)
        identities, numbers = self._identities.copy(), self._numbers.copy()
        ready = []
        for frame, start, stop in zip(
            self._waiting, starts[:count] - heads, starts[1 : count + 1] - heads, strict=False
        ):
            of, score = leaving[start:stop], frame.found.confidence
            rescored = mean[of] if self._method == "seq_nms" else (score + mean[of]) / 2
            rescored, names = np.where(of >= 0, rescored, 0), ids[of]
            if self._over_gaps:
                names = identities.step(frame.found, rescored, names, frame.features, dials.link_gap)
            result, rows = _result(frame.found, rescored, names, dials.score_threshold, numbers)
            ready.append(result)
            last = frame, of
        tubes = self._go_on(*last, ids, head) if count == 1 else _NO_TUBES
        numbers.keep({*tubes.ids.tolist(), *identities.names})
        # After what may fail, and is tried again.
        for _ in ready:
            self._waiting.popleft()
            self._came.popleft()
        self._given = None if self._waiting else _Given(result, rows)
        self._tubes, self._identities, self._numbers = tubes, identities, numbers
        self._ready += ready

    def _identify(self, head_path: Index, leaving: Index, num_paths: int) -> Index:
        """[paths + 1] the name of each path that leaves: its tube's, or a new one; -1 past the last path.

        Indexing with -1, the path of a box that left as a rival, gives -1.
        """
        ids = np.full(num_paths + 1, -1)
        ids[head_path] = self._tubes.ids
        new, first = np.unique(leaving[ids[leaving] < 0], return_index=True)
        new = new[np.argsort(first)]
        new = new[new >= 0]
        ids[new] = list(itertools.islice(self._names, len(new)))
        return ids

    def _path_means(self, path: Index, scores: Float, leaving: Index, head: Index) -> Double:
        """[paths + 1] mean score along each path that leaves: of its better half, or for Seq-NMS of all."""
        wanted = np.zeros(len(head), bool)
        wanted[leaving] = True
        wanted[-1] = False
        going_on = np.flatnonzero(wanted & (head >= 0))
        past = self._tubes.past[head[going_on]]
        known = ~np.isnan(past)
        group = np.concatenate([np.repeat(going_on, known.sum(1)), path[wanted[path]]])
        scores = np.concatenate([past[known], scores[wanted[path]]])
        return cpu.group_means(group, scores, groups=len(head), better_half=self._method != "seq_nms")

    def _go_on(self, frame: LinkedFrame, path: Index, ids: Index, head: Index) -> _Tubes:
        """The tubes as they stand after `frame`, the first that waited."""
        gain = frame.value.copy()
        came = head[path[frame.target]] == frame.source
        gain[frame.target[came]] += self._tubes.gain[frame.source[came]] + frame.score[came]
        past = np.full((len(path), PAST), np.nan, np.float32)
        old = head[path]
        past[old >= 0, :-1] = self._tubes.past[old[old >= 0], 1:]
        past[:, -1] = frame.found.confidence
        return _Tubes(ids[path], gain, past)


def _search(tubes: _Tubes, frames: deque[LinkedFrame]) -> tuple[Index, int]:
    """Path of each row of the tubes and of each box of the frames (equation 9), and how many paths there are."""
    starts = np.cumsum([len(tubes.ids), *(len(f.value) for f in frames)])
    before = [0, *starts[:-2]]
    source = np.concatenate([f.source + start for f, start in zip(frames, before, strict=True)])
    target = np.concatenate([f.target + start for f, start in zip(frames, starts[:-1], strict=True)])
    alive = np.ones(len(source), bool)
    # A box that left as a rival leads nowhere.
    alive[: len(frames[0].source)] = tubes.ids[frames[0].source] >= 0
    rival_of = np.concatenate([f.rival_of + start for f, start in zip(frames, starts[:-1], strict=True)])
    return cpu.link_paths(
        value=np.concatenate([tubes.gain, *(f.value for f in frames)]),
        link_start=_starts(target[alive], starts[-1]),
        source=source[alive],
        score=np.concatenate([f.score for f in frames])[alive],
        rival_start=_starts(rival_of, starts[-1]),
        rival=np.concatenate([f.rival + start for f, start in zip(frames, starts[:-1], strict=True)]),
    )


def _starts(rows: Index, length: int) -> Index:
    """[length + 1] where each row's entries begin in the ascending `rows`."""
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=length))])


def _result(
    found: Detections, confidence: Double, names: Index, threshold: float, numbers: Numbers
) -> tuple[Detections, Index]:
    """`found` with new confidences, best first; without those of at most `threshold`, and of 0, which is what left.
    And the row of each of them.
    """
    rows = np.flatnonzero(confidence > threshold)
    ids = np.full(len(names), NOBODY)
    ids[rows] = numbers.of(names[rows])
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    result = replace(
        found,
        xyxy=found.xyxy[rows],
        confidence=confidence[rows].astype(np.float32),
        class_id=found.class_id[rows],
        tracker_id=ids[rows],
    )
    return result, rows
