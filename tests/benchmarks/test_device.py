"""The scripts that measure a GPU, on the CPU: what they compare and write. That a GPU does it is not shown here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.frame import latency, steady_frame
from benchmarks.frame.device_side import DeviceSide, share_in_common
from benchmarks.frame.settings import Process, Setting, make_sweep
from benchmarks.frame.sides import HostSide
from benchmarks.quality import training_throughput
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import ConfigError
from rdn_engine.verify import set_difference
from training import provenance as environment

ENGINES = str(Path(__file__).resolve().parents[2] / "models" / "rdn_tiny" / "engines")
# Its frames hold nothing that the model knows: a threshold that something passes all the same.
DIALS = Dials(window=2, num_support=8, num_reference=16, advanced_ratio=0.5, score_threshold=1e-5)
PROCESS = Process(ENGINES)


@pytest.mark.parametrize("kind", ["push", "first"])
def test_a_window_filled_live_detects_what_a_replayed_one_does(kind: Any) -> None:
    device, host = DeviceSide(PROCESS), HostSide(replace(PROCESS, executor="graph"))
    setting = Setting(PROCESS, DIALS, kind)
    for side in (device, host):
        side.open("2", setting)
    got = device.check("2")
    assert sum(len(rows) for rows in got) > 0
    assert set_difference(got, host.check("2")) < 1e-5
    assert device.time("2").ms > 0
    device.drop("2")


class FakeBatch:
    """Streams that are pushed together: one list of results each."""

    def __init__(self, streams: list[Any]) -> None:
        self._streams = streams

    def push(self, frames: list[Any]) -> list[list[Any]]:
        return [stream.push(frame) for stream, frame in zip(self._streams, frames, strict=True)]

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def test_streams_of_a_device_are_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    side = DeviceSide(PROCESS)
    detector: Any = side._detector
    monkeypatch.setattr(
        detector,
        "open_streams",
        lambda names, dials: FakeBatch([detector.open_stream(dials) for _ in names]),
        raising=False,
    )
    side.open("3", Setting(PROCESS, DIALS, streams=3))
    found = side.check("3")
    assert len(found) == 3
    assert all(set_difference([rows], [found[0]]) == 0 for rows in found)
    side.drop("3")


def test_what_a_device_does_not_measure_is_said() -> None:
    with pytest.raises(ConfigError, match="fused executor at the bundle's own size"):
        DeviceSide(replace(PROCESS, executor="graph"))
    with pytest.raises(ConfigError, match="sweep `streams`"):
        DeviceSide(PROCESS).open("1", Setting(PROCESS, DIALS, "batch", batch=2))


def test_only_a_device_is_asked_for_more_than_four_streams() -> None:
    values = {}
    for device in ("cpu", "cuda"):
        sweep = make_sweep("streams", replace(PROCESS, device=device), RDNConfig(("a",)))
        assert sweep is not None
        values[device] = [value for value, _ in sweep.points]
    assert values == {"cpu": ["1", "2", "4"], "cuda": ["1", "8", "32"]}


def rows(*boxes: tuple[float, float, float]) -> np.ndarray:
    """x, score and class of boxes 0.1 wide."""
    return np.array([[x, 0, x + 0.1, 0.1, score, 1e3 * kind] for x, score, kind in boxes]).reshape(-1, 6)


@pytest.mark.parametrize(
    ("got", "share"),
    [
        ([(0.0, 0.9, 0), (0.5, 0.4, 1)], 1.0),
        ([(0.5, 0.4, 1), (0.0, 0.8, 0)], 1.0),  # in any order
        ([(0.03, 0.9, 0), (0.5, 0.4, 1)], 1.0),  # IoU 0.54
        ([(0.04, 0.9, 0), (0.5, 0.4, 1)], 0.5),  # IoU 0.43
        ([(0.0, 0.9, 0), (0.5, 0.4, 0)], 0.5),  # another class
        ([(0.0, 0.4, 0), (0.5, 0.4, 1)], 0.75),  # half the score is less from one side only
        ([(0.0, 0.9, 0)], 2 / 3),
        ([], 0.0),
    ],
)
def test_boxes_in_common(got: list[tuple[float, float, float]], share: float) -> None:
    wanted = rows((0.0, 0.9, 0), (0.5, 0.4, 1))
    assert share_in_common([rows(*got)], [wanted]) == pytest.approx(share)
    assert share_in_common([wanted], [rows(*got)]) == pytest.approx(share)
    # Of proposals the features are not looked at.
    proposals = [np.column_stack([r[:, :5], np.full((len(r), 8), float(i))]) for i, r in enumerate((wanted, wanted))]
    assert share_in_common(proposals[:1], proposals[1:]) == 1.0


def test_a_device_that_finds_other_boxes_is_not_timed() -> None:
    right = rows(*((x / 10, 0.9, 0) for x in range(10)))
    checked = latency._check_shared("T = 2", "the CPU", [right], [right], 0.9)
    assert (checked["in_common"], checked["detections"]) == (1.0, 10)
    moved = np.where(np.arange(10)[:, None] < 8, right, right + np.array([0, 0.5, 0, 0.5, 0, 0]))
    with pytest.raises(latency.Mismatch, match=r"T = 2: 80\.0% of the boxes are the CPU's too; wanted 90%\. Not timed"):
        latency._check_shared("T = 2", "the CPU", [moved], [right], 0.9)


def test_calls_that_wait_are_told_from_those_that_enqueue() -> None:
    waits = ["cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cuStreamSynchronize",
             "cudaMemcpy", "cuMemcpyDtoH_v2", "cudaMalloc", "cudaFree", "cuMemFree_v2", "cudaMemcpy2D"]  # fmt: skip
    enqueues = ["cudaLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync", "cudaEventRecord",
                "cuLaunchKernel", "cudaStreamWaitEvent", "cudaMallocAsync", "cudaFreeAsync", "cuMemcpyDtoHAsync_v2",
                "cudaStreamIsCapturing", "cudaEventQuery"]  # fmt: skip
    assert steady_frame.waiting_calls([*waits, *enqueues, waits[0]]) == dict.fromkeys(waits, 1) | {waits[0]: 2}


def test_only_calls_inside_the_work_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def work() -> None:
        with torch.profiler.record_function("cudaFakeSynchronize"):
            pass
        with torch.profiler.record_function("something else"):
            pass

    assert steady_frame.calls_of(work) == ["cudaFakeSynchronize"]


def test_a_steady_frame_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steady.json"
    assert steady_frame.main(["--quick", "--output", str(path)]) == 0
    result = json.loads(path.read_text())
    assert (result["device"], result["precision"], result["frames"], result["waits"]) == ("cpu", "float32", 3, {})
    assert result["graphs_ms"].keys() == {"backbone", "roi_head"}
    assert min(result["pipelined_ms"], *result["graphs_ms"].values()) > 0
    graphs = sum(result["graphs_ms"].values())
    assert result["over_graphs"] == pytest.approx(result["pipelined_ms"] / graphs)
    assert result["rest_ms"] == pytest.approx(result["pipelined_ms"] - graphs)
    assert "rest_ms" in capsys.readouterr().out


def test_the_wait_for_data_is_a_part_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    assert training_throughput.main(["--quick", "--workers", "0", "1", "--output", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["workers"] for row in rows] == [0, 1]
    assert all(0 < row["data_part"] < 1 and row["steps"] == 2 and row["step_ms"] > row["data_ms"] for row in rows)


def test_the_recipe_that_is_measured_is_the_papers(tmp_path: Path) -> None:
    arguments = training_throughput.argparse.Namespace(quick=False, bf16=True)
    (tmp_path / "images").mkdir()
    data = training_throughput.write_videos(tmp_path, quick=True)
    settings = training_throughput.settings_of(data, 7, arguments)
    assert (settings.model.backbone.name, settings.model.input.shorter_side) == ("resnet101", 600)
    assert [(p.clips, p.frames_per_clip, p.references, p.iterations) for p in settings.phases] == [(1, 3, "first", 7)]
    assert settings.bf16
    assert settings.rois_per_frame == 128


def test_a_machine_without_a_package_or_a_gpu_still_tells_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "av":
            raise environment.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setenv("PATH", "")
    assert "av" not in environment._versions()
    assert environment._versions()["numpy"] == "1.0"
    assert environment.gpu() is None
