"""Rounds of real streams, on a clock that the test holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rdn_engine import Detector
from rdn_engine.errors import BackendUnavailable
from rdn_engine.tuning.costs import Effort
from rdn_engine.tuning.machine import LiveMachine
from rdn_engine.tuning.space import Options
from tests.fakes import DIALS, fake_detector, image

PICTURES = [image(level) for level in (10, 20, 30)]


class Clock:
    """Every look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("interval", [1, 3])
def test_a_round_is_a_frame_of_every_stream_with_a_full_window(monkeypatch: pytest.MonkeyPatch, interval: int) -> None:
    detector, encoder, relation = fake_detector()
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: detector)
    machine = LiveMachine([Path("none")], PICTURES, 2, "float32", Clock())
    found = machine.measure(Options(0, "onnxruntime", 1), replace(DIALS, interval=interval), Effort(4, 9, 1e9))
    assert found.ms == (1000.0 / interval,) * 9
    assert found.p50 == found.p99 == pytest.approx(1000 / interval)
    # The pictures that fill windows, and then one frame of each of two streams a round, the one before the clock too.
    assert len(encoder.asked) == len(PICTURES) + 2 * 10
    full = (2 * DIALS.window + 1) * DIALS.num_support
    assert [sum(map(sum, window.values())) for window in relation.windows[-20:]] == [full] * 20
    assert set(found.stages) >= {"backbone", "relation"}


def test_rounds_end_with_their_seconds_but_not_before_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: fake_detector()[0])
    machine = LiveMachine([Path("none")], PICTURES, 1, "float32", Clock())
    options = Options(0, "onnxruntime", 1)
    assert len(machine.measure(options, DIALS, Effort(4, 99, 0.5)).ms) == 4
    assert 4 < len(machine.measure(options, DIALS, Effort(4, 99, 30.0)).ms) < 30


def test_a_model_is_loaded_once_for_measurements_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def from_pretrained(directory: Path, **options: object) -> Detector:
        opened.append((directory, options["backend"], options["threads"], options["ring_precision"]))
        if options["backend"] == "openvino":
            raise BackendUnavailable("no openvino")
        return fake_detector()[0]

    monkeypatch.setattr(Detector, "from_pretrained", from_pretrained)
    machine = LiveMachine([Path("a"), Path("b")], PICTURES, 1, "float16")
    for _ in range(2):
        machine.measure(Options(0, "onnxruntime", 1), DIALS, Effort(1, 1, 1.0))
    with pytest.raises(BackendUnavailable):
        machine.model(Options(1, "openvino", 2))
    machine.model(Options(0, "onnxruntime", 1))
    first = (Path("a"), "onnxruntime", 1, "float16")
    assert opened == [first, (Path("b"), "openvino", 2, "float16"), first]
