"""Video object detection with Relation Distillation Networks: a small runtime that holds one window per stream."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.device.results import DeviceDetections
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
    from rdn_engine.media.source import open_source

try:
    __version__ = version("rdn-engine")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+source"

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


def __getattr__(name: str) -> Any:
    # When it is first asked for, because it brings the video library, which a detector of arrays does not need.
    if name == "open_source":
        from rdn_engine.media.source import open_source

        return open_source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
