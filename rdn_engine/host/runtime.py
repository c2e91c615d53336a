"""The runtime behind `device="cpu"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rdn_engine.backends.graph import Backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.frame import Frame, Image
from rdn_engine.host.attached import AttachedEncoder, DetectorScores
from rdn_engine.host.batch import EncoderCalls, HostStreamBatch
from rdn_engine.host.cosine_stage import CosineStage
from rdn_engine.host.encoder import Encoder
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation, Relation
from rdn_engine.host.relation_graph import GraphRelation
from rdn_engine.host.stream import HostStream
from rdn_engine.kernels.cpu import Precision, RingPrecision
from rdn_engine.results import Detections

Executor = Literal["fused", "graph"]


class HostRuntime:
    """A model in the memory of the host."""

    def __init__(self, model: HostModel) -> None:
        self.model = model
        self.encoder_calls = EncoderCalls()
        """How frames of several streams are encoded"""

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        backend: Backend,
        *,
        executor: Executor,
        precision: Precision,
        threads: int,
        ring_precision: RingPrecision = "float32",
    ) -> HostRuntime:
        """Load the graphs and weights of a bundle.

        Args:
            bundle: whose files were checked.
            backend: runs its graphs.
            executor: `fused` (compiled attention) or `graph` (the relation graph on the backend).
            precision: of the products of `fused`.
            threads: bounds the CPU threads of every stage of one call.
            ring_precision: of what streams keep.

        Raises:
            BundleError: for a graph or a weight that is not what the configuration wants.
            BackendUnavailable, ConfigError: for a precision that is not to be had here, or unknown.
        """
        config = bundle.config
        encoder = load_encoder(bundle, backend, threads)
        relation = load_relation(bundle, backend, executor, precision, threads)
        if config.cosine_score and ring_precision != "float32":
            raise BackendUnavailable(f"ring_precision is {ring_precision!r}; cosine_score has 'float32' alone")
        # Without relations the window has what is given out, and little of it.
        ring: RingPrecision = "float32" if config.alone else ring_precision
        return cls(HostModel(config, encoder, relation, threads, ring, bundle.manifest.confidence))

    @property
    def config(self) -> RDNConfig:
        return self.model.config

    @property
    def threads(self) -> int:
        return self.model.threads

    def open_stream(self, dials: Dials, capacity: Dials, source_id: str) -> HostStream:
        return HostStream(self.model, dials, capacity, source_id)

    def open_streams(self, dials: Dials, capacity: Dials, source_ids: Sequence[str]) -> HostStreamBatch:
        streams = [HostStream(self.model, dials, capacity, source_id) for source_id in source_ids]
        return HostStreamBatch(self.model, self.encoder_calls, streams)

    def push_each(
        self, streams: Sequence[HostStream], frames: Sequence[Image | Frame]
    ) -> list[list[Detections] | Exception]:
        if not all(isinstance(stream, HostStream) and stream.is_of(self.model) for stream in streams):
            raise ConfigError("a stream is of another detector; wanted streams of this one's open_stream")
        counts = [(stream.accepted, stream.rejected) for stream in streams]
        try:
            return [*HostStreamBatch(self.model, self.encoder_calls, streams).push(frames)]
        except Exception:
            # Whichever stream it was: each answers for itself, and one that has its frame is not given it again.
            answers: list[list[Detections] | Exception] = []
            for stream, frame, (accepted, rejected) in zip(streams, frames, counts, strict=True):
                stream.rejected = rejected  # a frame that is refused now is not counted twice
                answers.append(self._push_alone(stream, None if stream.accepted > accepted else frame))
            return answers

    def _push_alone(self, stream: HostStream, frame: Image | Frame | None) -> list[Detections] | Exception:
        try:
            [ready] = HostStreamBatch(self.model, self.encoder_calls, [stream]).push([frame])
        except Exception as error:
            return error
        return ready


def load_relation(
    bundle: Bundle, backend: Backend, executor: Executor, precision: Precision, threads: int
) -> Relation | CosineStage:
    """Load the relation stage.

    Args:
        bundle: whose files were checked.
        backend: runs its graph, for `graph`.
        executor: `fused` (compiled attention) or `graph`.
        precision: of the products of `fused`.
        threads: bounds the CPU threads of one call.

    Raises:
        BundleError: for a graph or a weight that is not what the configuration wants.
        BackendUnavailable, ConfigError: for a precision that is not to be had here, or unknown.
    """
    config = bundle.config
    if config.alone:
        return DetectorScores()
    if config.cosine_score:
        if precision != "float32":
            raise BackendUnavailable(f"relation_precision is {precision!r}; cosine_score has 'float32' alone")
        graph = backend.load(bundle.path("relation")) if executor == "graph" else None
        return CosineStage(config, bundle.arrays("weights"), threads, graph)
    if executor == "fused":
        return FusedRelation(config, bundle.arrays("weights"), threads, precision)
    return GraphRelation(config, backend.load(bundle.path("relation")))


def load_encoder(bundle: Bundle, backend: Backend, threads: int) -> Encoder | AttachedEncoder:
    """Load the graphs in front of the relation stage: RDN's own, or an attached detector.

    Args:
        bundle: whose files were checked.
        backend: runs its graphs.
        threads: bounds the CPU threads of the kernels of one call.

    Raises:
        BundleError: for a graph that is not what the configuration wants.
    """
    config = bundle.config
    if config.alone or config.cosine_score:
        return AttachedEncoder(config, backend.load(bundle.path("encoder")), None, threads)
    # The larger one first: loading takes several times its size, of which the other uses some again.
    roi_head = backend.load(bundle.path("roi_head"))
    if config.attached is not None:
        return AttachedEncoder(config, backend.load(bundle.path("encoder")), roi_head, threads)
    return Encoder(config, backend.load(bundle.path("backbone")), roi_head, threads)
