"""The fastest backend: measured once, remembered for what it holds for."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.host import fastest
from rdn_engine.host.fastest import ROUNDS, fastest_backend

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


class Machine:
    """Backends whose calls take as long as a test says, on a clock that it holds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = {"onnxruntime": 2.0, "openvino": 1.0}
        self.missing: set[str] = set()
        self.opened: list[str] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.calls: list[str] = []

    def load_backend(self, name: str, device: str, threads: int) -> Any:
        if name in self.missing:
            raise BackendUnavailable(f"no {name}")
        self.opened.append(name)
        machine = self

        class Graph:
            def __call__(self, feeds: dict[str, np.ndarray]) -> None:
                machine.shapes.add(feeds["image"].shape)
                machine.calls.append(name)
                machine.now += machine.seconds[name]

        class Backend:
            def load(self, path: Path) -> Graph:
                assert path.name == "backbone.onnx"
                return Graph()

        return Backend()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setattr(fastest, "load_backend", made.load_backend)
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    monkeypatch.setenv("RDN_ENGINE_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(ENGINES)


def test_the_one_that_takes_less_time_is_taken(machine: Machine, bundle: Bundle) -> None:
    assert fastest_backend(bundle, 1) == "openvino"
    machine.seconds["openvino"] = 3.0
    assert fastest_backend(bundle, 2) == "onnxruntime"
    config = bundle.config.input
    assert {shape[2] for shape in machine.shapes} == {config.shorter_side}


def test_they_take_turns(machine: Machine, bundle: Bundle) -> None:
    fastest_backend(bundle, 1)
    assert machine.calls == ["onnxruntime", "openvino"] * (ROUNDS + 1)


def test_it_is_measured_once_for_each_bundle_and_number_of_threads(
    machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastest_backend(bundle, 1) == "openvino"
    calls = len(machine.calls)
    machine.seconds["openvino"] = 99.0
    assert fastest_backend(bundle, 1) == "openvino", "as remembered"
    assert len(machine.calls) == calls
    assert fastest_backend(bundle, 2) == "onnxruntime"
    monkeypatch.setattr(fastest, "_processor", lambda: "another one")
    assert fastest_backend(bundle, 1) == "onnxruntime"


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    def told(family: int, model: int, flags: str, pace: int) -> str:
        lines = f"cpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n"
        (tmp_path / "cpuinfo").write_text(
            "".join(f"processor\t: {i}\ncpu MHz\t: {pace + i}\n{lines}\n" for i in (0, 1))
        )
        return fastest._processor(tmp_path / "cpuinfo")

    kinds = [(25, 17, "fma avx2"), (26, 17, "fma avx2"), (25, 1, "fma avx2"), (25, 1, "fma")]
    assert len({told(*kind, pace=2400) for kind in kinds}) == len(kinds)
    assert told(*kinds[0], pace=2400) == told(*kinds[0], pace=3700)
    assert fastest._processor(tmp_path / "none") == ""


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"other": 1.0}', '{"openvino": "1"}'])
def test_a_damaged_memory_is_measured_anew(machine: Machine, bundle: Bundle, tmp_path: Path, damage: str) -> None:
    fastest_backend(bundle, 1)
    [place] = (tmp_path / "cache").iterdir()
    place.write_text(damage)
    calls = len(machine.calls)
    assert fastest_backend(bundle, 1) == "openvino"
    assert len(machine.calls) == 2 * calls
    assert json.loads(place.read_text()) == {"onnxruntime": 2.0, "openvino": 1.0}


def test_a_cache_that_cannot_be_written_is_no_fault(
    machine: Machine, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RDN_ENGINE_CACHE", str(tmp_path / "file" / "below"))
    assert fastest_backend(bundle, 1) == "openvino"


def test_without_openvino_there_is_nothing_to_measure(machine: Machine, bundle: Bundle) -> None:
    machine.missing.add("openvino")
    assert fastest_backend(bundle, 1) == "onnxruntime"
    assert machine.calls == []
    machine.missing.add("onnxruntime")
    with pytest.raises(BackendUnavailable, match="no onnxruntime"):
        fastest_backend(bundle, 3)


def test_what_it_took_is_said(machine: Machine, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rdn_engine"):
        fastest_backend(bundle, 1)
    assert caplog.messages == [
        "backend 'auto' takes 'openvino'; a frame's backbone on 1 threads: onnxruntime 2000.0 ms, openvino 1000.0 ms"
    ]


def test_a_detector_takes_one_and_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RDN_ENGINE_CACHE", str(tmp_path))
    detector = Detector.from_pretrained(ENGINES, backend="auto", threads=1)
    assert detector.backend in ("onnxruntime", "openvino")
    assert len(list(tmp_path.iterdir())) == 1
    assert Detector.from_pretrained(ENGINES, threads=1).backend == "onnxruntime"
    with pytest.raises(ConfigError, match="chooses on device 'cpu'"):
        Detector.from_pretrained(ENGINES, backend="auto", device="cuda")
