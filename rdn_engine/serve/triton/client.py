"""Streams whose windows are behind Triton Inference Server (docs/triton.md)."""

from __future__ import annotations

import json
import math
import time
import uuid
from typing import Any

import numpy as np

from rdn_engine.errors import AdmissionRefused, BackendUnavailable, FrameError, RDNError, ServerUnavailable
from rdn_engine.frame import check_image
from rdn_engine.plain import check
from rdn_engine.results import Detections
from rdn_engine.serve.client import RemoteStream
from rdn_engine.serve.sessions import Reply, Request
from rdn_engine.serve.triton.wire import error_of
from rdn_engine.stream.order import aspect, position, seconds

try:
    from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    raise BackendUnavailable(
        f"streams on Triton want its client ({error}); pip install 'tritonclient[grpc]'"
    ) from error

LONGEST_NAME = 128
"""Characters of a correlation id"""
_WANTED = "wanted one that `rdn-engine export-triton` wrote"
_LARGEST = 2**63 - 1
# gRPC's own pauses between attempts grow to two minutes, in which a server that was started again is not found.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


def open_triton_stream(url: str, model: str, *, name: str | None = None, timeout: float = 10.0) -> RemoteStream:
    """A stream on a server, to which nothing is sent yet.

    Args:
        url: host:port of the server's gRPC.
        model: its name there.
        name: of the stream, unlike that of any other of the model: the correlation id, 1..128 characters, and what
            results call their source; None makes one up. What a Frame says of its source and capture is not sent.
        timeout: seconds that a push may take, reconnecting included.

    Raises:
        ConfigError: for an option out of its range.
    """
    name = f"stream-{uuid.uuid4()}" if name is None else name
    check(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME, "name", name, f"1..{LONGEST_NAME} characters")
    return RemoteStream(_Triton(url, model), name, timeout=timeout)


class _SequenceUnknown(Exception):
    """Triton has no sequence of this id, and wants the START flag."""


class _Triton:
    """A frame and its request are one inference of a sequence, which Triton has begun and ended at times of its own."""

    many = False

    def __init__(self, url: str, model: str) -> None:
        self._url, self._model = url, model
        self._client = InferenceServerClient(url, channel_args=_CHANNEL)
        self._class_names: tuple[str, ...] = ()

    def send(self, request: Request, seconds: float) -> Reply:
        start, end = request.session is None, time.monotonic() + seconds
        while True:
            try:
                return self._infer(request, end, start=start)
            except FrameError as error:
                return Reply(request.session, error=error)
            except AdmissionRefused as error:
                return Reply(None, error=error)
            except _SequenceUnknown:
                # The window, where there still is one, is given up with what Triton has forgotten.
                if not request.frames:
                    return Reply(None)
                start = True

    def close(self) -> None:
        self._client.close()

    def _infer(self, request: Request, end: float, *, start: bool) -> Reply:
        """One inference, which has an answer by `end` of the monotonic clock."""
        try:
            if start:
                self._class_names = self._read_class_names(_left(end))
            answer = self._client.infer(
                self._model,
                _inputs(request),
                sequence_id=request.stream,
                sequence_start=start,
                sequence_end=request.end,
                client_timeout=_left(end),
            )
        except InferenceServerException as error:
            raise self._meaning(error) from error
        lines = _output(answer, "RESULTS").tobytes().decode().splitlines()
        results = tuple(Detections.from_dict(json.loads(line), self._class_names) for line in lines)
        return Reply(int(_output(answer, "SESSION").item()) or None, len(request.frames), results)

    def _read_class_names(self, seconds: float) -> tuple[str, ...]:
        config = self._client.get_model_config(self._model, client_timeout=seconds).config
        if "class_names" not in config.parameters:
            raise RDNError(f"model {self._model!r} has no class_names; {_WANTED}")
        return tuple(json.loads(config.parameters["class_names"].string_value))

    def _meaning(self, error: InferenceServerException) -> Exception:
        status, message = error.status() or "", error.message() or ""
        told = error_of(message)
        if told is not None:
            return told
        if "must specify the START flag" in message:
            return _SequenceUnknown()
        # Of a model's process that died or is late, with which its windows are gone.
        stub = "Stub process" in message and "not healthy" in message
        if stub or status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")):
            return ServerUnavailable(f"{self._url} gave no answer for model {self._model!r}: {message}")
        return RDNError(f"{self._url}, model {self._model!r}: {message}")


def _left(end: float) -> float:
    """Seconds until then, above 0."""
    return max(end - time.monotonic(), 1e-3)


def _inputs(request: Request) -> list[InferInput]:
    # The facts are checked here: a tensor takes much for a number that is none, and NaN says that there is no time.
    index, pts, pixel_aspect, pixels = -1, None, 1.0, []
    if request.frames:
        [frame] = request.frames
        index, pts, pixel_aspect = position(frame.index), seconds(frame.pts), aspect(frame.pixel_aspect)
        if index > _LARGEST:
            raise FrameError(f"index is {index}; wanted at most {_LARGEST}, which a tensor holds")
        pixels = [_input("FRAME", check_image(frame.image)[None], "UINT8")]
    return [
        *pixels,
        _input("KNOWN", np.array([[request.session or 0, request.number]], np.int64), "INT64"),
        _input("FRAME_INDEX", np.array([[index]], np.int64), "INT64"),
        _input("PTS", np.array([[math.nan if pts is None else pts]], np.float64), "FP64"),
        _input("PIXEL_ASPECT", np.array([[pixel_aspect]], np.float64), "FP64"),
    ]


def _input(name: str, values: Any, kind: str) -> InferInput:
    tensor = InferInput(name, list(values.shape), kind)
    tensor.set_data_from_numpy(np.ascontiguousarray(values))
    return tensor


def _output(answer: InferResult, name: str) -> Any:
    values = answer.as_numpy(name)
    if values is None:
        raise RDNError(f"the model gave no {name}; {_WANTED}")
    return values
