"""The client of streams behind Triton, against the table behind it, on a network that loses and repeats."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tritonclient.grpc")

from tritonclient.utils import InferenceServerException

from rdn_engine.errors import AdmissionRefused, RDNError
from rdn_engine.results import Detections
from rdn_engine.serve import client as module
from rdn_engine.serve.client import TritonStream
from rdn_engine.serve.triton.options import TritonOptions
from rdn_engine.serve.triton.sequences import Request, Sequences
from rdn_engine.stream.base import Stream
from tests.fakes import image
from tests.serve.contents import telling_detector

IDLE = 10.0
TYPES = {"UINT8": np.uint8, "INT64": np.int64, "FP64": np.float64}


class Result:
    def __init__(self, **arrays: Any) -> None:
        self._arrays = arrays

    def as_numpy(self, name: str) -> Any:
        return self._arrays[name]


@dataclass
class Server:
    """Triton as far as a sequence meets it, and the network in front; what every session gives is compared with what a
    stream of its own gives.
    """

    now: float = 0.0
    fault: str = ""
    taken: int = 0

    def __post_init__(self) -> None:
        self.detector = telling_detector()
        self.alone: dict[int, Stream] = {}
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Again, with other sessions than before."""
        self.starts += 1
        options = TritonOptions(idle_seconds=IDLE, max_sequences=1)
        clock, wall = (lambda: self.now), (lambda: self.starts * 10**6)
        self.sequences = Sequences(self.detector, options, clock=clock, wall_ns=wall)
        self.live: dict[str, float] = {}

    def get_model_config(self, *_: Any, **__: Any) -> Any:
        names = json.dumps(self.detector.config.class_names)
        return SimpleNamespace(config=SimpleNamespace(parameters={"class_names": SimpleNamespace(string_value=names)}))

    def close(self) -> None:
        pass

    def infer(
        self, model: str, inputs: Any, *, sequence_id: str, sequence_start: bool, sequence_end: bool, **_: Any
    ) -> Result:
        fault, self.fault = self.fault, ""
        if fault == "lost call":
            raise InferenceServerException("late", "StatusCode.DEADLINE_EXCEEDED")
        given = {one.name(): np.frombuffer(one._get_content(), TYPES[one.datatype()]) for one in inputs}
        shapes = {one.name(): one.shape() for one in inputs}
        picture = given["FRAME"].reshape(shapes["FRAME"])[0] if "FRAME" in given else None
        pts = float(given["PTS"][0])
        index = int(given["FRAME_INDEX"][0])
        request = Request(sequence_id, sequence_start, sequence_end, picture, None if index < 0 else index,
                          None if math.isnan(pts) else pts)  # fmt: skip
        answer = self._step(request)
        if fault == "lost answer":
            raise InferenceServerException("late", "StatusCode.DEADLINE_EXCEEDED")
        return answer

    def _step(self, request: Request) -> Result:
        name = str(request.sequence)
        if self.now - self.live.get(name, -math.inf) >= IDLE and not request.start:
            raise InferenceServerException(f"sequence {name} must specify the START flag on the first request")
        self.live[name] = self.now
        if request.end:
            del self.live[name]
        [answer] = self.sequences.step([request])
        if answer.error is not None:
            raise InferenceServerException(f"{type(answer.error).__name__}: {answer.error}", "StatusCode.INTERNAL")
        if answer.session not in self.alone:
            self.alone[answer.session] = self.detector.open_stream(source_id=name)
        stream, wanted = self.alone[answer.session], []
        if request.image is not None:
            wanted += stream.push(request.image)
        wanted += stream.flush() if request.end else []
        assert [(r.pool_fill, r.confidence.tolist()) for r in answer.results] == [
            (r.pool_fill, r.confidence.tolist()) for r in wanted
        ]
        lines = "\n".join(json.dumps(result.to_dict()) for result in answer.results)
        return Result(SESSION=np.array([[answer.session]]), RESULTS=np.frombuffer(lines.encode(), np.uint8))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return connected(monkeypatch)


def connected(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(module, "_RETRY_SECONDS", 60.0)  # a failure is said at once
    monkeypatch.setattr(module, "InferenceServerClient", lambda *_, **__: server)
    return server


def test_a_frame_whose_first_answer_was_lost_is_counted(server: Server) -> None:
    stream = TritonStream("nowhere", "rdn", name="a", timeout=30)
    server.fault = "lost answer"
    with pytest.raises(RDNError):
        stream.push(image(0))
    found = [one for t in range(1, 5) for one in stream.push(image(t))] + stream.flush()
    assert (len(found), stream.lost, stream.epoch) == (4, 1, 0)


def test_a_stream_that_was_refused_begins_when_there_is_room(server: Server) -> None:
    first, second = (TritonStream("nowhere", "rdn", name=name, timeout=30) for name in "ab")
    first.push(image(0))
    with pytest.raises(AdmissionRefused):
        second.push(image(1))
    first.close()
    second.push(image(2))
    assert [one.frame_index for one in second.flush()] == [0]
    assert second.lost == 0


EVENTS = st.lists(
    st.one_of(
        st.sampled_from(["push"] * 6 + ["flush", "restart", "lost call", "lost answer", "other", "resize"]),
        st.integers(1, 12),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.booleans())
def test_every_frame_has_one_result_or_is_lost(events: list[str | int], patient: bool) -> None:
    """And no result is of a window that its session does not have, which the server's `_step` asserts."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        server = connected(monkeypatch)
        monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0 if patient else 60.0)
        stream = TritonStream("nowhere", "rdn", name="a", timeout=30)
        found: list[Detections] = []
        level, side, given = 0, 16, 0
        for event in events:
            if isinstance(event, int):
                server.now += event
            elif event == "push":
                level += 1
                try:
                    found += stream.push(image(level, side, side))
                    given += 1
                except AdmissionRefused:
                    pass
                except RDNError:
                    given += 1
            elif event == "flush":
                with suppress(RDNError):
                    found += stream.flush()
            elif event == "restart":
                server.start()
            elif event == "resize":
                side = 36 - side
            elif event == "other":
                with suppress(InferenceServerException):
                    server._step(Request("b", True, False, image(0)))
            else:
                server.fault = event
            assert len(found) + stream._pending + stream.lost == given
        epochs = [one.epoch for one in found]
        assert epochs == sorted(epochs)
