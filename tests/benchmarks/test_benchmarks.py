"""The logic of the measuring scripts: what is refused, what is kept, what is written. No times are judged."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from torch import nn

from benchmarks import measure
from benchmarks.frame import latency, settings
from benchmarks.frame.baseline import BaselineVideo
from benchmarks.frame.latency import DEMO, Mismatch
from benchmarks.frame.settings import NAMES, Process, Setting, Sweep, make_sweep
from benchmarks.frame.sides import BaselineSide, HostSide, Sample
from benchmarks.frames import make_frame
from benchmarks.kernel import kernels
from benchmarks.kernel.case import Case
from benchmarks.kernel.machine import Rates
from benchmarks.quality.from_nothing import seconds_of
from benchmarks.report import tables
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig, RelationConfig
from rdn_engine.host.features import head
from rdn_engine.kernels import _C
from rdn_engine.verify import set_difference

torch.set_num_threads(1)

SMALL = Dials(window=2, num_support=8, num_reference=16, advanced_ratio=0.5)
BASE = Process(str(DEMO))


def sweep_of(values: Sequence[str] = ("1", "2", "3"), name: str = "T") -> Sweep:
    points = tuple((v, Setting(BASE, replace(SMALL, window=int(v)))) for v in values)
    return Sweep(name, name, points, values[0])


class FakeWorker:
    """Answers as a side would; takes 10 ms more with every sample, fails after `limit` of them."""

    limit = 10**6
    wrong = ""
    """the setting whose detections are not those of its reference"""
    order: ClassVar[list[str]]

    def __init__(self, process: Process, cores: Sequence[int]) -> None:
        self.process, self.cores = process, cores

    def ask(self, command: str, *arguments: Any) -> Any:
        cls = type(self)
        if command == "check":
            wrong = self.process.executor == "fused" and arguments[0] == cls.wrong
            return [np.full((2, 6), 0.5 + 0.1 * wrong)]
        if command == "time":
            if len(cls.order) >= cls.limit:
                raise KeyboardInterrupt
            cls.order.append(arguments[0])
            return Sample(10.0 * len(cls.order), {"backbone": 4.0, "relation": 2.0}, None, 16)
        return 123.0 if command == "peak_megabytes" else None

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    class Worker(FakeWorker):
        order: ClassVar[list[str]] = []

    monkeypatch.setattr(latency, "verify_bundles", lambda bundles, threads: None)
    return Worker


def rounds_of(output: Path, sweep: str = "T") -> dict[str, list[float]]:
    points = json.loads(output.read_text())["sweeps"][sweep]["points"]
    return {value: [r["ms"] for r in p["rounds"]] for value, p in points.items()}


@effort(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=40), st.floats(0, 100))
def test_percentile_is_numpy_s(values: list[float], percent: float) -> None:
    assert measure.percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_summary() -> None:
    found = measure.summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert found == {"min": 1, "p50": 3, "p90": 4.6, "p99": 4.96, "max": 5, "spread": round(1 / 3, 6)}


def test_energy_counts_on_when_a_counter_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "POWERCAP", tmp_path)
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (package / "max_energy_range_uj").write_text("9999999")
    (package / "energy_uj").write_text("9000000")
    energy = measure.energy_counter("cpu")
    assert energy.read is not None
    assert energy.read() == 0
    (package / "energy_uj").write_text("1000000")
    assert energy.read() == pytest.approx(2.0)


def test_no_energy_counter_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "POWERCAP", tmp_path)
    assert measure.energy_counter("cpu") == (None, f"no energy counter of a CPU package under {tmp_path}")


@pytest.mark.parametrize("name", NAMES)
def test_sweeps_hold_their_reference_once(name: str) -> None:
    config = RDNConfig(("a",))
    other = replace(BASE, engines="engines/int8")
    sweep = make_sweep(name, BASE, config, [other], ["onnxruntime", "torch"])
    assert sweep is not None
    values = [value for value, _ in sweep.points]
    assert values.count(sweep.reference) == 1
    assert len(set(values)) == len(values) >= 2
    assert len({setting for _, setting in sweep.points}) == len(values)


def test_a_process_has_a_core_for_each_of_its_threads_and_streams() -> None:
    wanted = {}
    for name in ("threads", "streams"):
        sweep = make_sweep(name, BASE, RDNConfig(("a",), dials=SMALL), cores=2)
        assert sweep is not None
        wanted[name] = latency.cores_wanted(sweep)
    assert wanted["threads"] == {replace(BASE, threads=n): n for n in (1, 2)}
    assert wanted["streams"] == {BASE: 4}  # of those it is given, however few they are


def test_what_a_model_lacks_is_not_swept() -> None:
    single = RDNConfig(("a",), relation=RelationConfig(num_basic=0, advanced=False))
    basic = RDNConfig(("a",), relation=RelationConfig(advanced=False))
    assert [make_sweep(n, BASE, single) for n in ("T", "K", "r", "bundles", "backend")] == [None] * 5
    assert make_sweep("r", BASE, basic) is None
    assert make_sweep("K", BASE, basic) is not None
    assert make_sweep("threads", BASE, basic, cores=1) is None


def test_every_round_measures_every_setting_in_turn(fake: type[FakeWorker], tmp_path: Path) -> None:
    sweep = sweep_of()
    latency.run([sweep], tmp_path / "r.json", 3, [0], fake)
    rounds = [tuple(fake.order[i : i + 3]) for i in range(0, len(fake.order), 3)]
    assert len(rounds) == sweep.warm_up + 3
    assert all(sorted(r) == ["1", "2", "3"] for r in rounds)
    assert len(set(rounds)) > 1
    assert {len(ms) for ms in rounds_of(tmp_path / "r.json").values()} == {3}


def test_a_stopped_run_goes_on_where_it_was(fake: type[FakeWorker], tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    sweep = sweep_of()
    fake.limit = 3 * (sweep.warm_up + 2) + 1
    with pytest.raises(KeyboardInterrupt):
        latency.run([sweep], output, 5, [0], fake)
    before = rounds_of(output)
    assert {len(ms) for ms in before.values()} == {2}
    assert not json.loads(output.read_text())["sweeps"]["T"].get("complete")
    fake.limit = 10**6
    latency.run([sweep], output, 5, [0], fake)
    after = rounds_of(output)
    assert all(after[v][:2] == before[v] and len(after[v]) == 5 for v in before)
    taken = len(fake.order)
    latency.run([sweep], output, 5, [0], fake)
    assert len(fake.order) == taken


def test_other_code_or_settings_start_anew(
    fake: type[FakeWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "r.json"
    latency.run([sweep_of()], output, 2, [0], fake)
    first = rounds_of(output)
    latency.run([sweep_of(("1", "2"))], output, 2, [0], fake)
    assert set(rounds_of(output)) == {"1", "2"}
    monkeypatch.setattr(latency, "fingerprint", lambda engines: "another machine")
    latency.run([sweep_of()], output, 2, [0], fake)
    assert all(rounds_of(output)[v] != first[v] for v in first)


def test_fingerprint_is_of_the_code_and_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    code = tmp_path / "ops.py"
    code.write_text("a = 1")
    before = latency.fingerprint([str(tmp_path)], [code])
    assert latency.fingerprint([str(tmp_path)], [code]) == before
    code.write_text("a = 2")
    assert latency.fingerprint([str(tmp_path)], [code]) != before
    code.write_text("a = 1")
    (tmp_path / "manifest.json").write_text("{ }")
    assert latency.fingerprint([str(tmp_path)], [code]) != before


def test_fingerprint_is_of_the_measuring_code(monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = set(), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.add(path.resolve()), real(path))[1])
    latency.fingerprint([str(DEMO)])
    code = Path(latency.__file__).resolve().parent
    wanted = {code / "sides.py", code / "baseline.py", Path(_C.__file__).resolve(), DEMO / "manifest.json"}
    assert wanted <= read


def test_what_does_not_match_its_reference_is_not_timed(fake: type[FakeWorker], tmp_path: Path) -> None:
    fake.wrong = "2"
    with pytest.raises(Mismatch, match=r"T = 2 .*differ by 0.1 .*wanted 0.001"):
        latency.run([sweep_of()], tmp_path / "r.json", 2, [0], fake)
    assert fake.order == []
    assert not (tmp_path / "r.json").exists()


def test_a_bundle_that_fails_verify_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = latency.verify(DEMO)
    damaged = [dataclasses.replace(r, difference=1.0) if r.stage == "logits" else r for r in real]
    monkeypatch.setattr(latency, "verify", lambda engines, threads: damaged)
    with pytest.raises(Mismatch, match="logits"):
        latency.run([sweep_of()], tmp_path / "r.json", 1, [0], FakeWorker)


def test_a_rounded_relation_stage_is_held_to_the_boxes_of_one_that_is_not() -> None:
    config = RDNConfig(("a",), relation=RelationConfig(64, 4, 2), dials=SMALL)
    sweep = make_sweep("executor", BASE, config)
    assert sweep is not None
    points = dict(sweep.points)
    assert ("fused, bfloat16" in points) == (_C.isa == "avx512_bf16")
    for setting in points.values():
        assert latency.reference_of(setting.process).relation_precision == "float32"
    rounded = replace(BASE, relation_precision="bfloat16")
    reference = latency.reference_of(rounded)
    assert (reference.executor, reference.engines) == ("graph", BASE.engines)
    setting = Setting(rounded, SMALL)
    boxes = np.array([[10.0 * i, 0, 10 * i + 8, 8, 0.9, 1] for i in range(4)])

    class Answers(FakeWorker):
        boxes: Any = None

        def ask(self, command: str, *arguments: Any) -> Any:
            return [self.boxes] if command == "check" else None

    worker, other = Answers(rounded, [0]), Answers(reference, [0])
    worker.boxes, other.boxes = boxes[1:], boxes
    checked = latency._check_one("executor", "fused, bfloat16", setting, worker, other, reference)
    assert (checked["reference"], checked["in_common"]) == ("graph", pytest.approx(6 / 7))
    worker.boxes = boxes[3:]
    with pytest.raises(Mismatch, match=r"40\.0% of the boxes are graph's too; wanted 50%"):
        latency._check_one("executor", "fused, bfloat16", setting, worker, other, reference)


@pytest.mark.parametrize(("name", "encoded"), [("interval", [1, 1, 1, 1]), ("still", [10, 10, 5, 1, 0])])
def test_a_round_encodes_as_many_frames_as_it_says(name: str, encoded: list[int]) -> None:
    sweep = make_sweep(name, BASE, Bundle.open(DEMO).config)
    assert sweep is not None
    side = HostSide(BASE)
    for (value, setting), wanted in zip(sweep.points, encoded, strict=True):
        # A window that is full sooner; the rest as it is measured.
        side.open(value, replace(setting, dials=replace(setting.dials, window=1, look_ahead=None)))
        assert len(side.check(value)) == 1
        for _ in range(2):
            [stream] = side._streams[value]
            before, accepted = stream.timings.frames, stream.accepted
            assert side.time(value).ms > 0
            assert (stream.timings.frames - before, stream.accepted - accepted) == (wanted, setting.frames)
        side.drop(value)


def test_a_higher_threshold_encodes_fewer_frames_of_a_round() -> None:
    sweep = make_sweep("threshold", BASE, Bundle.open(DEMO).config)
    assert sweep is not None
    side, encoded = HostSide(BASE), []
    for value, setting in sweep.points:
        side.open(value, replace(setting, dials=replace(setting.dials, window=1, look_ahead=None)))
        side.check(value)
        [stream] = side._streams[value]
        before = stream.timings.frames
        side.time(value)
        encoded.append(stream.timings.frames - before)
        side.drop(value)
    assert [value for value, _ in sweep.points] == ["0", "2", "4", "6", "8"]
    assert (encoded[0], encoded[-1]) == (10, 1)
    assert encoded == sorted(encoded, reverse=True)


def test_ratios_are_taken_round_by_round() -> None:
    def point(*ms: float) -> dict[str, Any]:
        return {"rounds": [{"ms": m, "stages": {"relation": m / 2}, "joules": None, "proposals": 7} for m in ms]}

    found = latency.summarise({"18": point(10, 20, 40), "24": point(11, 24, 40)}, "24", "18")
    assert found["ratio"]["p50"] == 1.1
    assert found["stages_ms"] == {"relation": 12.0}
    assert (found["joules"], found["proposals"]) == (None, 7)


def test_a_smaller_n_and_k_are_a_prefix() -> None:
    side = HostSide(BASE)
    many = side._encoding(0)
    images = side._network(0)
    (few,) = side._replay.encode(images, 20, 9, lambda stage: None)
    for name, array in vars(head(many, 20, 9)).items():
        if name == "class_scores":  # of detectors that are attached
            assert array is getattr(few, name) is None
        else:
            np.testing.assert_allclose(array, getattr(few, name), atol=1e-4, err_msg=name)


def test_a_filled_window_is_a_pushed_one() -> None:
    """Both sides: what a setting's first steady frame gives, against every frame pushed live."""
    setting = Setting(BASE, SMALL)
    ours, plain = HostSide(BASE), BaselineSide(BASE)
    for side in (ours, plain):
        side.open("a", setting)
    frames = [make_frame(t, ours._size) for t in range(2 * SMALL.window + 1)]
    with ours._detector.open_stream(SMALL) as stream:
        pushed = [r for frame in frames for r in stream.push(frame)][-1]
    video = BaselineVideo(plain._model, SMALL)
    slow = [r for frame in frames for r in video.push(frame)][-1]
    [filled] = plain._videos["a"].push(frames[-1])
    [got] = ours.check("a")
    assert len(got) == len(pushed) > 0
    np.testing.assert_allclose(got[:, 4], pushed.confidence, atol=1e-6)
    torch.testing.assert_close(filled.confidence, slow.confidence, rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [BaselineSide, lambda process: HostSide(replace(process, backend="torch"))])
def test_both_sides_agree_from_equal_inputs_and_on_the_proposals(other: Callable[[Process], Any]) -> None:
    setting = Setting(BASE, SMALL)
    ours, plain = HostSide(BASE), other(BASE)
    for side in (ours, plain):
        side.open("a", setting)
    wanted = [*ours.check("a"), ours.proposals("a")]
    got = plain.check("a", ours.encodings("a"))
    tolerance = Bundle.open(DEMO).manifest.tolerances["detections"]
    assert set_difference(got, wanted) < tolerance
    assert [len(rows) for rows in got] == [len(rows) for rows in wanted]
    moved = [got[0], got[1] + np.r_[[0.01] * 5, np.zeros(got[1].shape[1] - 5)]]
    assert set_difference(moved, wanted) > tolerance


def test_demo_model_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, real checks, at dials that are quick."""
    monkeypatch.setattr(settings, "PAPER_POINT", SMALL)
    monkeypatch.setitem(settings.QUICK_VALUES, "r", (0.25, 0.5))
    output = tmp_path / "r.json"
    options = ["--quick", "--rounds", "1", "--sweeps", "r", "--cores", "0", "--output", str(output)]
    assert latency.main(options) == 0
    state = json.loads(output.read_text())
    assert list(state["sweeps"]["r"]["points"]) == ["25%", "50%"]
    for point in state["sweeps"]["r"]["points"].values():
        assert point["check"]["difference"] <= point["check"]["tolerance"]
        assert point["check"]["detections"] > 0
        assert point["proposals"] >= SMALL.num_reference
        assert set(point["stages_ms"]) >= set(tables.STAGES)
    assert state["versions"]["onnxruntime"]
    assert state["energy"]
    assert f"report.py {os.path.relpath(output)}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"], "drawing is report's"
    with pytest.raises(SystemExit):
        latency.main(["--quick", "--sweeps", "backend", "--backends", "onnxruntime", "torch"])
    assert "--sweeps has ['backend']; --quick measures ['T'," in capsys.readouterr().err


def case(ours: float, tolerance: float = 1e-3, truth: float | None = None) -> Case:
    class Peer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    return Case(
        name="plus one",
        ours=lambda: np.full(3, ours, np.float32),
        module=Peer(),
        inputs=(torch.ones(3),),
        compare=lambda got, theirs: float(np.abs(got - theirs[0]).max()),
        tolerance=tolerance,
        unit="units",
        moved=24,
        operations=3,
        others={"wrong": lambda: torch.full((3,), 5.0)},
        truth=None if truth is None else lambda: [np.full(3, truth)],
        left_out={"torch.compile": "no need", **({"ONNX Runtime": "no need"} if truth != ours else {})},
    )


def test_kernels_are_timed_beside_peers_that_agree() -> None:
    found = kernels.measure(case(2.0, truth=2.0), Rates(1.0, 1.0), rounds=2)
    assert set(found["times"]) == {"ours", "torch eager", "ONNX Runtime"}
    assert found["left_out"]["wrong"] == "differs by 3 units; wanted at most 0.001"
    assert found["differences"]["ours"] == 0
    assert found["floor_ms"] == pytest.approx(24 / 1e9 * 1e3)


def test_a_wrong_kernel_is_not_timed() -> None:
    with pytest.raises(SystemExit, match="plus one: ours differs by 1 units from the definition"):
        kernels.measure(case(3.0, truth=2.0), Rates(1.0, 1.0), rounds=1)


def test_floor_is_the_slower_of_bytes_and_operations() -> None:
    rates = Rates(copy_gbs=10, gflops=100, isa_gflops={"baseline": 25, "avx2": 100})
    assert rates.floor_ms(10e9, 1) == pytest.approx(1000)
    assert rates.floor_ms(1, 200e9) == rates.floor_ms(1, 200e9, "avx2") == pytest.approx(2000)
    assert rates.floor_ms(1, 200e9, "baseline") == pytest.approx(8000)


def test_the_time_of_a_training_is_that_of_its_steps() -> None:
    log = [
        {"iteration": 25, "phase": "start", "step_seconds": 0.2},
        {"iteration": 50, "phase": "start", "step_seconds": 0.4},
        {"iteration": 50, "phase": "start", "validation_seconds": 7.0},
        {"iteration": 60, "phase": "basic", "step_seconds": 1.0},
    ]
    assert seconds_of(log) == pytest.approx({"start": 15.0, "basic": 10.0})
