"""Video object detection with Relation Distillation Networks: a small runtime that holds one window per stream."""

from typing import TYPE_CHECKING, Any

from rdn_engine.config import Dials, RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import (
    AdmissionRefused,
    BackendUnavailable,
    BundleError,
    CheckpointError,
    ConfigError,
    FrameError,
    RDNError,
    ResultError,
    StreamClosed,
    VideoError,
)
from rdn_engine.frame import NV12, Frame
from rdn_engine.results import Detections
from rdn_engine.stream.base import Stream
from rdn_engine.stream.batch import StreamBatch

if TYPE_CHECKING:
    from rdn_engine.device.results import DeviceDetections
    from rdn_engine.media.base import SourceOptions
    from rdn_engine.media.live import LiveOptions, LiveSource
    from rdn_engine.media.source import open_source
    from rdn_engine.serve.options import StreamOptions
    from rdn_engine.serve.scheduler import Scheduler

    __version__: str

__all__ = [
    "NV12",
    "AdmissionRefused",
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
    "LiveOptions",
    "LiveSource",
    "RDNConfig",
    "RDNError",
    "ResultError",
    "Scheduler",
    "SourceOptions",
    "Stream",
    "StreamBatch",
    "StreamClosed",
    "StreamOptions",
    "VideoError",
    "__version__",
    "open_source",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from rdn_engine.version import version

        return version()
    # A detector of arrays on the CPU needs neither the device's modules nor the video library.
    if name == "DeviceDetections":
        from rdn_engine.device.results import DeviceDetections

        return DeviceDetections
    if name == "Scheduler":
        from rdn_engine.serve.scheduler import Scheduler

        return Scheduler
    if name == "StreamOptions":
        from rdn_engine.serve.options import StreamOptions

        return StreamOptions
    if name == "SourceOptions":
        from rdn_engine.media.base import SourceOptions

        return SourceOptions
    if name in ("LiveOptions", "LiveSource"):
        from rdn_engine.media import live

        return live.LiveOptions if name == "LiveOptions" else live.LiveSource
    if name == "open_source":
        from rdn_engine.media.source import open_source

        return open_source
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
