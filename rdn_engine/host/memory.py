"""What a stream remembers of its frames, whatever the relation stage: RDN's window, or YOLOV's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.host.cosine import CosineWindow
from rdn_engine.host.cosine_memory import LocalAverage
from rdn_engine.host.cosine_stage import CosineMemory, CosineStage, settings_of, window_frames
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.host.relation import Relation, relate
from rdn_engine.host.window import Window
from rdn_engine.kernels.cpu import Float, RingPrecision


class Memory(Protocol):
    """Frames go in; what the relation stage says of one comes out once its window is there."""

    newest: int
    """Number of the last frame appended; -1 after a reset."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; the same from the first frame to the last."""
        ...

    def reset(self) -> None:
        """Forget every frame; the next one appended is frame 0."""
        ...

    def append(self, frame: EncodedFrame) -> int:
        """Make a frame the newest; gives its number, from 0 since the last `reset`."""
        ...

    def relate(self, t: int, dials: Dials, lap: Callable[[str], None]) -> tuple[Float, RelationOutput, Float | None]:
        """Boxes [n, 4] in network-input pixels of frame t's proposals, what the stage says of them, and their features
        [n, D], which say how they look; None where there are none.

        There are as many later frames as the dials look ahead, or the last ones of the epoch. lap: called with the name
        of each stage as it ends.
        """
        ...


class RelationMemory:
    """The window of RDN's modules."""

    def __init__(
        self, relation: Relation, config: RDNConfig, capacity: Dials, ring_precision: RingPrecision = "float32"
    ) -> None:
        self._relation, self._alone = relation, config.alone
        self.window = Window(config.relation, capacity, relation.precision, ring_precision)

    @property
    def newest(self) -> int:
        return self.window.newest

    @property
    def nbytes(self) -> int:
        return self.window.nbytes

    def reset(self) -> None:
        self.window.reset()

    def append(self, frame: EncodedFrame) -> int:
        return self.window.append(frame)

    def relate(self, t: int, dials: Dials, lap: Callable[[str], None]) -> tuple[Float, RelationOutput, Float | None]:
        reference, output = relate(self._relation, self.window, t, dials, lap)
        # Of a detector alone they are its class scores.
        return reference.boxes, output, None if self._alone else reference.features


def open_memory(
    relation: Relation | CosineStage, config: RDNConfig, capacity: Dials, ring_precision: RingPrecision = "float32"
) -> RelationMemory | CosineMemory:
    """The memory of one stream.

    Args:
        relation: the executor of the model's relation stage.
        config: of the model.
        capacity: the largest T, K, N and r of the stream.
        ring_precision: of what a stream of RDN's keeps.

    Raises:
        ConfigError: for a stream that does not fit into memory.
    """
    if isinstance(relation, CosineStage):
        return CosineMemory(relation, config, capacity)
    return RelationMemory(relation, config, capacity, ring_precision)


def stream_nbytes(config: RDNConfig, capacity: Dials, ring_precision: RingPrecision = "float32") -> int:
    """Bytes of the memory of one stream, before there is one.

    Args:
        config: of the model.
        capacity: the largest T, K and N of the stream.
        ring_precision: as `open_memory`.
    """
    if config.relation.attention != "cosine_score":
        return Window(config.relation, capacity, ring=ring_precision).nbytes
    proposals = capacity.num_reference
    ring = CosineWindow.nbytes_for(settings_of(config), frames=window_frames(config, capacity), proposals=proposals)
    local, frames = 0, config.cosine.local_frames
    if frames:
        local = LocalAverage.nbytes_for(4 * config.relation.dim, frames=frames, proposals=proposals)
    scores = (capacity.window + 1) * proposals * (5 + len(config.class_names)) * np.dtype(np.float32).itemsize
    return ring + local + scores
