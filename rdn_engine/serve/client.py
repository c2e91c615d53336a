"""A stream whose detector is behind Triton Inference Server (docs/triton.md)."""

from __future__ import annotations

import json
import math
import time
import uuid
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from rdn_engine.errors import (
    AdmissionRefused,
    BackendUnavailable,
    ConfigError,
    FrameError,
    RDNError,
    ServerUnavailable,
)
from rdn_engine.frame import Frame, Image, check_image
from rdn_engine.plain import LONGEST_WAIT, check, is_finite
from rdn_engine.results import Detections

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
_RETRY_SECONDS = 0.2
# gRPC's own pauses between attempts grow to two minutes, in which a server that was started again is not found.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


class _SequenceLost(Exception):
    """The server has no state of this sequence."""


class TritonStream:
    """One video: frames go in with `push`, results come out in order, as of `Stream`. One thread at a time.

    A window lives on the server. Where that one was started again, forgot a stream that was idle, or has another state
    for any reason, the stream begins anew there: `epoch` grows, results say so in their own `epoch`, and `lost` counts
    the frames whose results were still to come.
    """

    def __init__(self, url: str, model: str, *, name: str | None = None, timeout: float = 10.0) -> None:
        """Nothing is sent yet.

        Args:
            url: host:port of the server's gRPC.
            model: its name there.
            name: of the stream, unlike that of any other of the model: the correlation id, 1..128 characters, and what
                results call their source; None makes one up.
            timeout: seconds that a push may take, reconnecting included.

        Raises:
            ConfigError: for an option out of its range.
        """
        name = f"stream-{uuid.uuid4()}" if name is None else name
        check(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME, "name", name, f"1..{LONGEST_NAME} characters")
        check(is_finite(timeout) and 0 < timeout <= LONGEST_WAIT, "timeout", timeout, f"seconds, 0..{LONGEST_WAIT:g}")
        self.name = name
        self.lost = 0
        """Frames that the server took, or may have taken, and whose results will never come"""
        self._url, self._model, self._timeout = url, model, timeout
        self._client = InferenceServerClient(url, channel_args=_CHANNEL)
        self._class_names: tuple[str, ...] = ()
        self._live = False  # the server is to have a state of this stream
        self._session = 0
        self._base = self._epoch = 0
        self._sent = self._pending = 0

    @property
    def epoch(self) -> int:
        """How often the stream's state was reset, as far as the server has said."""
        return self._epoch

    def push(self, frame: Image | Frame, pts: float | None = None) -> list[Detections]:
        """Take the next frame.

        Args:
            frame, pts: as `Stream.push`. What a Frame says of its source and capture is not sent.

        Returns:
            The results that became ready.

        Raises:
            FrameError: for what is no image; the stream is as it was.
            AdmissionRefused: the server has no room for the stream. Its next push asks again.
            ServerUnavailable: it cannot be reached, or gave no answer in time. The next push begins anew there.
            RDNError: a stage failed there. The next push begins anew.
        """
        if not isinstance(frame, Frame):
            frame = Frame(frame, self._sent, pts, self.name)
        image = _input("FRAME", check_image(frame.image)[None], "UINT8")
        try:
            answer = self._ask([image, *_facts(frame.index, frame.pts, frame.pixel_aspect)])
        except RDNError as error:
            # Of other errors nobody knows whether it was taken.
            self._pending += not isinstance(error, (FrameError, AdmissionRefused))
            raise
        self._sent += 1
        return [] if answer is None else self._taken(answer, frames=1)

    def flush(self) -> list[Detections]:
        """End the epoch, and the sequence on the server.

        Returns:
            The results still to come; none where the server lost the window, which `lost` says.

        Raises:
            ServerUnavailable, RDNError: as `push`.
        """
        answer = self._ask(_facts(), end=True)
        if answer is None:
            self._lose()
            return []
        return self._taken(answer)

    def close(self) -> None:
        """End the sequence without its results, and the connection. A server that is not there forgets it by itself."""
        try:
            if self._live:
                self._send(_facts(), start=True, end=True, seconds=min(self._timeout, 1.0))
        except (InferenceServerException, RDNError, _SequenceLost):
            pass
        finally:
            self._live = False
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, inputs: list[InferInput], *, end: bool = False) -> InferResult | None:
        """Send until there is an answer; None where a sequence that is to end is not there. After a failure of which
        nobody knows what the server did, the request goes as a START: the state that it finds there, if any, is given
        up, so that no frame is in a window twice.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            live, self._live = self._live, False
            if end and not live:
                return None
            try:
                answer = self._send(inputs, start=not live, end=end, seconds=deadline - time.monotonic())
            except _SequenceLost:
                continue
            except FrameError:
                self._live = live
                raise
            except ServerUnavailable:
                if time.monotonic() + _RETRY_SECONDS >= deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
                continue
            self._live = not end
            return answer

    def _send(self, inputs: list[InferInput], *, start: bool, end: bool, seconds: float) -> InferResult:
        """One attempt."""
        try:
            if start:
                config = self._client.get_model_config(self._model, client_timeout=max(seconds, 1e-3)).config
                if "class_names" not in config.parameters:
                    raise RDNError(f"model {self._model!r} has no class_names; {_WANTED}")
                self._class_names = tuple(json.loads(config.parameters["class_names"].string_value))
            return self._client.infer(
                self._model,
                inputs,
                sequence_id=self.name,
                sequence_start=start,
                sequence_end=end,
                client_timeout=max(seconds, 1e-3),
            )
        except InferenceServerException as error:
            raise self._meaning(error) from error

    def _meaning(self, error: InferenceServerException) -> Exception:
        status, message = error.status() or "", error.message() or ""
        kind, _, text = message.partition(": ")
        if kind == "AdmissionRefused":
            return AdmissionRefused(text, wanted=0, left=0)
        if kind in ("FrameError", "ConfigError"):
            return (FrameError if kind == "FrameError" else ConfigError)(text)
        if "must specify the START flag" in message:
            return _SequenceLost()
        # Of a model's process that died or is late, with which its windows are gone.
        stub = "Stub process" in message and "not healthy" in message
        if stub or status.endswith(("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")):
            return ServerUnavailable(f"{self._url} gave no answer for model {self._model!r}: {message}")
        return RDNError(f"{self._url}, model {self._model!r}: {message}")

    def _taken(self, answer: InferResult, *, frames: int = 0) -> list[Detections]:
        session = int(_output(answer, "SESSION").item())
        if session != self._session:
            self._lose()
            if self._session:
                self._base = self._epoch = self._epoch + 1
            self._session = session
        lines = _output(answer, "RESULTS").tobytes().decode().splitlines()
        results = [Detections.from_dict(json.loads(line), self._class_names) for line in lines]
        self._pending += frames - len(results)
        results = [replace(result, epoch=self._base + result.epoch) for result in results]
        self._epoch = max([self._epoch, *(result.epoch for result in results)])
        return results

    def _lose(self) -> None:
        self.lost += self._pending
        self._pending = 0


def _facts(index: int = -1, pts: float | None = None, pixel_aspect: float = 1.0) -> list[InferInput]:
    return [
        _input("FRAME_INDEX", np.array([[index]], np.int64), "INT64"),
        _input("PTS", np.array([[math.nan if pts is None else pts]]), "FP64"),
        _input("PIXEL_ASPECT", np.array([[pixel_aspect]]), "FP64"),
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
