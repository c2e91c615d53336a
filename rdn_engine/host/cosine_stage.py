"""YOLOV's relation stage for streams: which frames look at each other, what is averaged with the past, class scores.

The attention itself is `rdn_engine.host.cosine` over a ring (executor `fused`), or a graph on a backend (`graph`).
docs/yolov.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends.graph import Graph
from rdn_engine.bundle.contract import relation_arrays
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import BundleError
from rdn_engine.host.cosine import CosineWindow, Related
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings
from rdn_engine.host.cosine_memory import LocalAverage, ShuffledMemory
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.stream.order import span
from rdn_engine.stream.room import room_for

SHARPNESS = 25.0
"""Cosines are multiplied by it, and by the score of the key, in front of the softmax."""
LOCAL_MARGIN = -0.3
"""A box of the past takes part in the average where its score is above the box's own plus this."""
KEPT = 600
"""Frames that `shuffled` memory draws from."""
_GRAPH = ({"features", "features_reg", "scale_cls", "scale_reg", "similarity", "reference"}, {"out", "omega"})
_LAST_PIXEL = np.array([0, 0, 1, 1], np.float32)


class CosineAttention(Protocol):
    """The proposals of one stream's frames, and what those of one become by looking at those of others."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        ...

    @property
    def held(self) -> list[int]:
        """Frames that may be looked at, oldest first."""
        ...

    def append(self, features_cls: Float, features_reg: Float, confidence: Float, objectness: Float) -> int:
        """Take the next frame: [n, D], [n, D], [n] and [n] of its proposals; gives its number from 0."""
        ...

    def relate(
        self, reference: int, frames: Sequence[int], most: int | None = None, linked: int | None = None
    ) -> Related:
        """Of the reference frame's proposals, of the first `most` proposals of `frames`, itself among them; with their
        weights for the frame `linked` of them.
        """
        ...

    def keep(self, frames: Collection[int]) -> None:
        """Forget all other frames."""
        ...

    def clear(self) -> None:
        """Forget every frame; the next one is number 0."""
        ...


class CosineStage:
    """The weights of the stage, shared by streams."""

    precision: cpu.Precision = "float32"

    def __init__(
        self, config: RDNConfig, weights: Mapping[str, NDArray[Any]], threads: int, graph: Graph | None = None
    ) -> None:
        """Check the weights, and the graph where one is to run.

        Args:
            config: of the model, with `cosine_score`.
            weights: `relation.npz`.
            threads: bounds the CPU threads of one call.
            graph: the relation graph on a backend, in place of the compiled attention.

        Raises:
            BundleError: for a weight or a graph that is not what the configuration wants.
        """
        arrays = relation_arrays(config, weights)
        if graph is not None and not (set(graph.inputs) == _GRAPH[0] and set(graph.outputs) >= _GRAPH[1]):
            raise BundleError(
                f"graph relation has inputs {list(graph.inputs)} and outputs {list(graph.outputs)}; wanted inputs "
                f"{sorted(_GRAPH[0])} and outputs {sorted(_GRAPH[1])}"
            )
        self._config, self._threads, self._graph = config, threads, graph
        self._classify = cpu.pack_weight(arrays.pop("classify.weight"), "float32"), arrays.pop("classify.bias")
        self._branch = CosineBranch(settings_of(config), arrays, threads) if graph is None else None

    def attention(self, frames: int, proposals: int) -> CosineAttention:
        """The memory of one stream.

        Args:
            frames: most that look at each other, the reference among them.
            proposals: most of a frame.
        """
        if self._graph is not None:
            return GraphAttention(self._config, self._graph, frames, proposals)
        assert self._branch is not None
        return CosineWindow(self._branch, frames=frames, proposals=proposals)

    def classify(self, out: Float) -> Float:
        """Class logits [n, C] of related features [n, 4 D]."""
        weight, bias = self._classify
        return cpu.linear(out, weight, bias, relu=False, threads=self._threads)


def settings_of(config: RDNConfig) -> CosineSettings:
    """What the attention is told of a model.

    Args:
        config: of the model, with `cosine_score`.
    """
    return CosineSettings(
        dim=config.relation.dim,
        heads=config.relation.heads,
        objectness_on_key=config.cosine.score_in_regression,
        similarity=config.cosine.similarity,
    )


class _Scores(NamedTuple):
    """Of the proposals of one frame, float32."""

    boxes: Float
    """[n, 4] network-input pixels, the last pixel included"""
    objectness: Float
    """[n]"""
    class_scores: Float
    """[n, C] of the detector itself"""


class CosineMemory:
    """What one stream remembers: proposals of the frames of its window, and what the last frames came to.

    With look-ahead 0 as the public online head: the frame and its memory, then the average over what overlaps in the
    last frames. With more as the offline head over the window t-T..t+L. Edges have no part in it: the window has the
    frames that there are.
    """

    def __init__(self, stage: CosineStage, config: RDNConfig, capacity: Dials) -> None:
        self._stage, self._config = stage, config
        self._waiting = capacity.window + 1
        with room_for(capacity):
            self._attention = stage.attention(window_frames(config, capacity), capacity.num_reference)
            self._local = None
            if config.cosine.local_frames:
                self._local = LocalAverage(
                    4 * config.relation.dim, frames=config.cosine.local_frames, proposals=capacity.num_reference
                )
            queue = (self._waiting, capacity.num_reference)
            self._boxes = np.zeros((*queue, 4), np.float32)
            self._objectness = np.zeros(queue, np.float32)
            self._class_scores = np.zeros((*queue, len(config.class_names)), np.float32)
        self._counts = np.zeros(self._waiting, np.int64)
        self._shuffled = None
        if config.cosine.memory_order == "shuffled":
            self._shuffled = ShuffledMemory(frames=KEPT, kept=KEPT)
        self._latest: tuple[int, Dials, RelationOutput] | None = None
        self.newest = -1
        """Number of the last frame appended; -1 after a reset."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        own = sum(a.nbytes for a in (self._boxes, self._objectness, self._class_scores))
        return own + self._attention.nbytes + (0 if self._local is None else self._local.nbytes)

    def reset(self) -> None:
        """Forget every frame; the next one appended is frame 0."""
        self.newest, self._latest = -1, None
        self._attention.clear()
        if self._local is not None:
            self._local.clear()
        if self._shuffled is not None:
            self._shuffled.clear()

    def append(self, frame: EncodedFrame) -> int:
        """Copy a frame in, over the oldest one.

        Args:
            frame: at most N proposals of the capacity, with class scores and both features.

        Returns:
            The number of the frame, from 0 since the last `reset`.
        """
        assert frame.class_scores is not None
        features, features_reg = np.split(frame.features, 2, 1)
        self._attention.append(features, features_reg, frame.class_scores.max(1), frame.objectness)
        self.newest += 1
        place, n = self.newest % self._waiting, len(frame.boxes)
        self._boxes[place, :n] = frame.boxes
        self._objectness[place, :n] = frame.objectness
        self._class_scores[place, :n] = frame.class_scores
        self._counts[place] = n
        return self.newest

    def relate(self, t: int, dials: Dials, lap: Callable[[str], None]) -> tuple[Float, RelationOutput, Float | None]:
        """The relation stage of a frame.

        Args:
            t: number of the frame, one of the last T + 1 appended.
            dials: with T, L and K; K proposals of every frame take part, the frame's own among them.
            lap: called with the name of each stage as it ends.

        Returns:
            Boxes [n, 4] of its proposals in network-input pixels, what the stage says of them, and no features: the
            ring has them projected.
        """
        rows = slice(min(dials.num_support, int(self._counts[t % self._waiting])))
        place = t % self._waiting
        own = _Scores(self._boxes[place, rows], self._objectness[place, rows], self._class_scores[place, rows])
        if self._latest is not None and self._latest[:2] == (t, dials):
            # What comes behind this stage failed, and is tried again: nothing is remembered twice.
            return own.boxes, self._latest[2], None
        frames = self._frames(t, dials)
        lap("window")
        output = self._alone(own) if frames is None else self._related(t, frames, own, dials)
        self._latest = t, dials, output
        if self._shuffled is not None and not dials.frames_ahead:
            # Frames behind this one wait for their own turn, where results looked ahead until now.
            self._attention.keep([*self._shuffled.append(t), *range(t + 1, self.newest + 1)])
        lap("relation")
        return own.boxes, output, None

    def _frames(self, t: int, dials: Dials) -> list[int] | None:
        """Numbers of the frames that the frame looks at, itself among them; None where there are too few."""
        if self._shuffled is None:
            frames = list(span(t, self.newest, dials))
            least = 1 if dials.frames_ahead else self._config.cosine.least_memory
            return frames if len(frames) > least else None
        # The look-ahead turns from 0 and back: each order may have lost frames that the other one wants.
        held = set(self._attention.held)
        if dials.frames_ahead:
            frames = [frame for frame in span(t, self.newest, dials) if frame in held]
            return frames if len(frames) > 1 else None
        drawn = self._shuffled()
        return None if drawn is None else [t, *[frame for frame in drawn if frame in held][: dials.window]]

    def _related(self, t: int, frames: Sequence[int], own: _Scores, dials: Dials) -> RelationOutput:
        linked = t + 1 if dials.link == "relations" and t + 1 in frames else None
        out, omega = self._attention.relate(t, frames, dials.num_support, linked)
        if self._local is not None and not dials.frames_ahead:
            confidence = own.class_scores.max(1)
            # Edges, as the detector has them.
            out = self._local(out, own.boxes + _LAST_PIXEL, confidence, own.objectness)
        logits = self._stage.classify(out)
        scores = own.objectness[:, None] * np.exp(-np.logaddexp(np.float32(0), -logits))
        return RelationOutput(logits, np.zeros((len(logits), 0), np.float32), omega, scores)

    def _alone(self, own: _Scores) -> RelationOutput:
        """The detector's own scores, of each box's best class."""
        best = own.class_scores.argmax(1)
        scores = np.zeros_like(own.class_scores)
        row = np.arange(len(best))
        scores[row, best] = own.objectness * own.class_scores[row, best]
        return RelationOutput(np.zeros_like(scores), np.zeros((len(best), 0), np.float32), None, scores)


def window_frames(config: RDNConfig, capacity: Dials) -> int:
    """Most frames that a stream's window has to hold.

    Args:
        config: of the model, with `cosine_score`.
        capacity: the largest T of the stream, and so its largest L.
    """
    around = 2 * capacity.window + 1
    return max(KEPT + 1, around) if config.cosine.memory_order == "shuffled" else around


class GraphAttention:
    """The relation graph over the rows of a window, gathered for every frame anew. Memory is fixed."""

    def __init__(self, config: RDNConfig, graph: Graph, frames: int, proposals: int) -> None:
        self._config, self._graph = config, graph
        dim, room = config.relation.dim, (frames + 1, proposals)
        self._arrays = (
            np.zeros((*room, dim), np.float32),
            np.zeros((*room, dim), np.float32),
            np.zeros(room, np.float32),
            np.zeros(room, np.float32),
        )
        self._counts = np.zeros(frames + 1, np.int64)
        self._slot_of: dict[int, int] = {}  # by frame, oldest first
        self._newest = -1

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (*self._arrays, self._counts))

    @property
    def held(self) -> list[int]:
        return list(self._slot_of)

    def append(self, features_cls: Float, features_reg: Float, confidence: Float, objectness: Float) -> int:
        if len(self._slot_of) == len(self._counts):
            slot = self._slot_of.pop(next(iter(self._slot_of)))
        else:
            slot = min(set(range(len(self._counts))) - set(self._slot_of.values()))
        given = features_cls, features_reg, confidence, objectness
        for array, rows in zip(self._arrays, given, strict=True):
            array[slot, : len(rows)] = rows
        self._counts[slot] = len(confidence)
        self._newest += 1
        self._slot_of[self._newest] = slot
        return self._newest

    def relate(
        self, reference: int, frames: Sequence[int], most: int | None = None, linked: int | None = None
    ) -> Related:
        cosine = self._config.cosine
        # The reference first; the others in any order.
        order = [reference, *(frame for frame in frames if frame != reference)]
        slots = [self._slot_of[frame] for frame in order]
        counts = [int(self._counts[slot]) if most is None else min(most, int(self._counts[slot])) for slot in slots]
        features, features_reg, confidence, objectness = (
            np.concatenate([array[slot, :count] for slot, count in zip(slots, counts, strict=True)])
            for array in self._arrays
        )
        place = 0 if linked is None else order.index(linked)
        begin = sum(counts[:place])
        columns = slice(begin, begin + counts[place])
        if not counts[0]:
            empty = None if linked is None else np.zeros((0, counts[place]), np.float32)
            return Related(np.zeros((0, 4 * features.shape[1]), np.float32), empty)
        keyed = objectness if cosine.score_in_regression else np.ones_like(objectness)
        feeds = {
            "features": features,
            "features_reg": features_reg,
            "scale_cls": confidence * np.float32(SHARPNESS),
            "scale_reg": keyed * np.float32(SHARPNESS),
            "similarity": np.array(cosine.similarity, np.float32),
            "reference": np.arange(counts[0]),
        }
        found = self._graph({name: np.ascontiguousarray(feeds[name]) for name in self._graph.inputs})
        return Related(found["out"], None if linked is None else found["omega"][:, columns])

    def keep(self, frames: Collection[int]) -> None:
        wanted = set(frames)
        self._slot_of = {frame: slot for frame, slot in self._slot_of.items() if frame in wanted}

    def clear(self) -> None:
        self._slot_of.clear()
        self._newest = -1
