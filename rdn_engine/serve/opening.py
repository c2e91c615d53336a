"""How a detector is opened, as processes tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdn_engine.backends.graph import BackendChoice, Device
from rdn_engine.detector import Detector, RelationPrecision
from rdn_engine.host.runtime import Executor
from rdn_engine.kernels.cpu import RingPrecision


@dataclass(frozen=True)
class DetectorOptions:
    """As `Detector.from_pretrained` takes them."""

    backend: BackendChoice = "onnxruntime"
    device: Device = "cpu"
    threads: int | None = None
    executor: Executor = "fused"
    relation_precision: RelationPrecision = "float32"
    ring_precision: RingPrecision = "float32"

    def open(self, engines: Path) -> Detector[Any, Any]:
        """Open an engine directory so.

        Args:
            engines: the directory.

        Raises:
            BundleError, BackendUnavailable, ConfigError: as `Detector.from_pretrained`.
        """
        return Detector.from_pretrained(engines, **vars(self))
