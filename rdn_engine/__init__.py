"""Video object detection with Relation Distillation Networks: a small runtime that holds one window per stream."""

from importlib.metadata import PackageNotFoundError, version

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
from rdn_engine.frame import NV12
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream

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
    "FrameError",
    "RDNConfig",
    "RDNError",
    "Stream",
    "StreamClosed",
    "VideoError",
    "__version__",
]
