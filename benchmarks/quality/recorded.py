"""What a detector's streams hand to their linkers, kept: a video is looked at once and linked at every setting."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine import Detections, Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.host.relation import FusedRelation, Supports
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.stream.linking import BoxLinker
from rdn_engine.stream.links import Linkable, Moved
from tests.reference_relation import embedding
from training.data.synthetic import SyntheticVideos
from training.evaluation.videos import AnnotatedVideos, from_synthetic

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """One frame, as it was handed over."""

    linkable: Linkable
    scores: Double | None
    """[M, N, W] what the last basic module of each head takes the softmax of, for the proposals of the next frame"""


Recorded = dict[str, list[Seen]]
"""The frames of each video, by its name"""


class _Recorder(BoxLinker):
    """Keeps what a stream hands to it, with what `scores` says at that time."""

    def __init__(self, relation: _ScoredRelation | None) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self._relation = relation

    def push(self, frame: Linkable, dials: Dials, moved: Moved | None = None) -> list[Detections]:
        scores = None if self._relation is None or frame.omega is None else self._relation.scores
        self.seen.append(Seen(frame._replace(omega=None if frame.omega is None else frame.omega.copy()), scores))
        return super().push(frame, dials, moved)


class _ScoredRelation:
    """A FusedRelation that keeps the scores behind the weights that were asked for last."""

    def __init__(self, relation: FusedRelation, weights: Any, module: int) -> None:
        self._inner, self._attend = relation, relation.attend
        self._geometry = weights[f"rel.{module}.geometry.weight"], weights[f"rel.{module}.geometry.bias"]
        self.scores: Double | None = None
        relation.attend = self._watched  # type: ignore[method-assign]

    def _watched(
        self,
        module: int,
        x: Float,
        query: Float,
        boxes: Float,
        supports: Supports,
        omega_rows: tuple[int, int] | None = None,
    ) -> Any:
        if omega_rows is not None:
            self.scores = self._scores(query, boxes, supports, omega_rows[0])
        return self._attend(module, x, query, boxes, supports, omega_rows)

    def _scores(self, query: Float, boxes: Float, supports: Supports, first_row: int) -> Double:
        """DESIGN section 2, Relation module: logit_ij of every head, for the frame that begins at `first_row`."""
        frame = int(np.flatnonzero(np.cumsum(supports.counts) - supports.counts == first_row)[0])
        while not supports.counts[frame]:  # a frame without proposals begins where the next one does
            if frame + 1 == len(supports.counts):
                break
            frame += 1
        slot, columns = supports.slots[frame], np.arange(supports.counts[frame])
        keys = supports.bank.keys[slot][:, columns // 16, :, columns % 16]  # [W, M, d]
        q = query.reshape(len(query), keys.shape[1], -1).astype(np.float64)
        weight, bias = (np.asarray(a, np.float64) for a in self._geometry)
        geometry = embedding(boxes[:, None], supports.bank.boxes[slot, columns][None]) @ weight.T + bias
        logits: Double = np.einsum("imd,jmd->mij", q, keys) / np.sqrt(q.shape[-1])
        logits += np.log(np.maximum(geometry, 0) + 1e-6).transpose(2, 0, 1)
        return logits


def recorded(bundle: Bundle, videos: SyntheticVideos, *, scored: bool, keep: Path | None) -> tuple[Annotated, Recorded]:
    """Look at every video once, on one thread.

    Args:
        bundle: whose detector looks, with its own dials, links by relations and over gaps.
        videos: to look at.
        scored: whether the scores of the last basic module are wanted.
        keep: a folder of what was seen before, which is taken from there; None looks again.

    Returns:
        The videos without their pictures, and what links their frames.
    """
    spec = [videos.split, videos.num_videos, videos.num_frames, videos.size, videos.seed, videos.hidden, scored]
    digest = hashlib.sha256((bundle.directory / "manifest.json").read_bytes() + json.dumps(spec).encode()).hexdigest()
    file = None if keep is None else keep / f"{digest[:16]}.pkl"
    if file is not None and file.exists():
        with file.open("rb") as stream:
            found: tuple[Annotated, Recorded] = pickle.load(stream)  # this script's own
        return found
    annotated = from_synthetic(videos)
    found = (
        Annotated(annotated.name, annotated.dataset, conditions=annotated.conditions),
        _look(Detector.from_pretrained(bundle.directory, threads=1), bundle, annotated, scored=scored),
    )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            pickle.dump(found, stream)
    return found


def linkables(detector: Detector, videos: AnnotatedVideos, dials: Dials) -> dict[str, list[Linkable]]:
    """What links the encoded frames of each video, by its name: one look at them serves every way of linking.

    Args:
        detector: looks at them.
        videos: each as a stream of its own.
        dials: of the streams; without linking nothing is recorded.
    """
    return {name: [one.linkable for one in seen] for name, seen in _streamed(detector, videos, dials, None).items()}


def _look(detector: Detector, bundle: Bundle, videos: AnnotatedVideos, *, scored: bool) -> Recorded:
    relation = None
    if scored:
        assert isinstance(detector.runtime, HostRuntime)
        fused = detector.runtime.model.relation
        assert isinstance(fused, FusedRelation)
        relation = _ScoredRelation(fused, bundle.arrays("weights"), detector.config.relation.num_basic - 1)
    dials = replace(detector.config.dials, link="relations", link_delay=0, link_gap=1)
    return _streamed(detector, videos, dials, relation)


def _streamed(detector: Detector, videos: AnnotatedVideos, dials: Dials, relation: _ScoredRelation | None) -> Recorded:
    found = {}
    for name, frames in videos.videos():
        with detector.open_stream(dials) as stream:
            stream.linker = recorder = _Recorder(relation)
            for frame in frames:
                stream.push(videos.read(frame))
            stream.flush()
        found[name] = recorder.seen
    return found
