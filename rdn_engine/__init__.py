"""Video object detection with Relation Distillation Networks: a small runtime that holds one window per stream."""

import importlib
from typing import TYPE_CHECKING, Any

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import (
    BackendUnavailable,
    BundleError,
    CheckpointError,
    ConfigError,
    FrameError,
    RDNError,
    StreamClosed,
    VideoError,
)
from rdn_engine.frame import NV12, Frame
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.batch import StreamBatch

if TYPE_CHECKING:
    from rdn_engine.device.results import DeviceDetections
    from rdn_engine.media.source import open_source

    __version__: str

__all__ = [
    "NV12",
    "BackendUnavailable",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "Detections",
    "Detector",
    "DeviceDetections",
    "Dials",
    "Frame",
    "FrameError",
    "RDNConfig",
    "RDNError",
    "Stream",
    "StreamBatch",
    "StreamClosed",
    "VideoError",
    "__version__",
    "open_source",
]


_WHEN_ASKED_FOR = {"DeviceDetections": "rdn_engine.device.results", "open_source": "rdn_engine.media.source"}
"""What a detector of arrays on the CPU does not need: the device's modules, and the video library."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from rdn_engine.version import version

        return version()
    if name not in _WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHEN_ASKED_FOR[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
