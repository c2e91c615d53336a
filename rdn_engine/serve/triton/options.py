"""How a model of Triton's is served: what `export-triton` writes, and its Python backend reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdn_engine.backends.graph import MOST_THREADS, BackendChoice, Device
from rdn_engine.detector import Detector, RelationPrecision
from rdn_engine.kernels.cpu import RingPrecision
from rdn_engine.plain import check, check_fields, from_plain, to_plain
from rdn_engine.serve.sessions import Sessions


@dataclass(frozen=True)
class TritonOptions:
    """Bounds of the streams of one model instance, and how it computes."""

    max_streams: int = 64
    """Streams that may be open at once; another one is refused"""
    idle_seconds: float = 60.0
    """A stream without a request for this long is forgotten, here and by Triton"""
    byte_budget: int | None = None
    """Bytes that all streams may hold at most; None for no limit but their number"""
    max_batch: int = 16
    """Frames of different streams in one call of the model"""
    instances: int = 1
    """Processes with the model, each with streams and a budget of its own"""
    backend: BackendChoice = "onnxruntime"
    """What runs the graphs"""
    device: Device = "cpu"
    """Where they run"""
    threads: int | None = None
    """CPU threads of an instance; None takes all that it may use"""
    relation_precision: RelationPrecision = "float32"
    ring_precision: RingPrecision = "float32"
    dials: dict[str, Any] = field(default_factory=dict)
    """Those of every stream, by name; the model's own where they are not given"""
    warm_up: int = 8
    """Frames of two streams before the model is ready, 0 for none"""

    def __post_init__(self) -> None:
        check(isinstance(self.dials, dict), "triton.dials", self.dials, "a mapping of dials")
        check_fields(
            self, "triton", max_streams=(1, 2**16), idle_seconds=(1e-3, 1e6), byte_budget=(1, 2**50),
            max_batch=(1, 2**10), instances=(1, 2**10), threads=(1, MOST_THREADS), warm_up=(0, 2**16),
        )  # fmt: skip

    def to_json(self) -> str:
        """As a parameter of config.pbtxt."""
        return json.dumps(to_plain(vars(self)))

    @classmethod
    def from_json(cls, text: str) -> TritonOptions:
        """The inverse of `to_json`.

        Args:
            text: of the parameter.

        Raises:
            ConfigError: for a field that is unknown or out of its range.
            ValueError: for what is no JSON.
        """
        return from_plain(cls, json.loads(text), "triton")

    def open(self, engines: Path) -> Sessions:
        """Open an engine directory and warm it up.

        Args:
            engines: the directory.

        Raises:
            BundleError, BackendUnavailable: as `Detector.from_pretrained`.
            ConfigError, AdmissionRefused: as `Sessions`.
        """
        detector = Detector.from_pretrained(
            engines, backend=self.backend, device=self.device, threads=self.threads,
            relation_precision=self.relation_precision, ring_precision=self.ring_precision,
        )  # fmt: skip
        sessions = Sessions(
            detector, detector.config.dials.turned(self.dials), max_streams=self.max_streams,
            byte_budget=self.byte_budget, idle_seconds=self.idle_seconds,
        )  # fmt: skip
        sessions.warm_up(self.warm_up, min(2, self.max_batch, self.max_streams))
        return sessions
