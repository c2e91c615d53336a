"""Every error this package raises on purpose. Each message says what was got and what was wanted."""

import functools


class RDNError(Exception):
    """Base of all errors raised by rdn_engine, export and training."""


class ConfigError(RDNError, ValueError):
    """A model configuration or a dial has a value outside its range, or an unknown name."""


class BundleError(RDNError):
    """An engine directory is missing, damaged, or not one this version can read."""


class CheckpointError(RDNError):
    """A checkpoint does not hold the tensors that its model needs."""


class AttachError(RDNError):
    """A detector cannot become an encoder: an output is missing, has another shape, or says something else."""


class PrecisionError(RDNError):
    """A model in reduced precision detects something else than in float32, or cannot be calibrated."""


class CalibrationError(RDNError):
    """Confidences cannot be calibrated on these videos: frames held out do not bear the fit out."""


class DatasetError(RDNError):
    """An annotation file cannot be read, or does not have the layout that was asked for."""


class TrainingError(RDNError):
    """A training run cannot go on: a loss is not finite, or too many frames cannot be read."""


class BackendUnavailable(RDNError):
    """A backend or device was asked for that this machine or this build does not have."""


class FrameError(RDNError, ValueError):
    """An array pushed into a stream is not an image this detector can read."""


class ResultError(RDNError, ValueError):
    """The arrays or the JSON line of a result do not fit together, or are not what a result is made of."""


class VideoError(RDNError):
    """A video source cannot be opened, or holds no video."""


class VideoWriteError(VideoError):
    """A video cannot be written: its name, its place, its encoder or its disk."""


class StreamClosed(RDNError):
    """`push` or `flush` was called on a stream that was closed."""


class AdmissionRefused(RDNError):
    """A stream does not fit into what is left of a service's byte budget."""

    def __init__(self, message: str, *, wanted: int, left: int) -> None:
        """wanted, left: bytes."""
        super().__init__(message)
        self.wanted = wanted
        self.left = left

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled whole: the rest of an exception's arguments has no names there."""
        return functools.partial(type(self), wanted=self.wanted, left=self.left), (str(self),)


class ServerUnavailable(RDNError):
    """A server cannot be reached, or gave no answer in time."""


class Overloaded(RDNError):
    """A server has as many frames waiting as it has room for, and did not take this one; its stream is as it was."""
