"""From the phases that a GPU left to the tables of docs/gpu.md and the rows of README; made-up numbers throughout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import gpu_tables, store
from benchmarks.report.report import rewrite

RUN = {
    "gpu": "Made-up GPU, 1.0",
    "date": "2030-01-02",
    "commit": "1df1fec56e0123456789",
    "versions": {"torch": "2.11.0", "numpy": "2.5.2"},
}
BLOCKS = gpu_tables.BLOCKS | gpu_tables.README


def point(*ms: float, reference: float = 1.0) -> dict[str, Any]:
    return {"rounds": [{"ms": m} for m in ms], "ms": {"p50": sorted(ms)[len(ms) // 2]}, "ratio": {"p50": reference}}


def swept(name: str, points: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    return {name: {"points": points, "complete": complete}}


STEADY = {"relation_ms": 0.11, "rest_ms": 0.5, "over_graphs": 1.31, "waits": {}, **RUN}
AGAINST = {
    "sweeps": swept("baseline", {"baseline": point(40.0, 44.0, 48.0), "r101/fp16, 1 thread": point(4.0, 4.0, 4.0)})
    | swept("ends", {"paper": point(4.0), "T = 3": point(3.8, reference=0.95)}),
    **RUN,
}
STREAMS = {"sweeps": swept("streams", {"1": point(4.0), "8": point(2.0), "32": point(1.6)}), **RUN}
KERNELS = {
    "ceilings": {"copy_gb_per_s": 4300.0, "matrix_tflop_per_s": 780.0},
    "kernels": {"resize": {"microseconds": 12.34, "of_bandwidth": 0.612, "of_matrix_rate": 0.0}},
    **RUN,
}
TRAINING = {"rows": [{"workers": 4, "step_ms": 210.0, "data_part": 0.031, "frames_per_second": 14.2}],
            "model": "ResNet-101", **RUN}  # fmt: skip
SMOKE = {"rows": [{"what": "kernel gates", "passed": True, "told": "fine"},
                  {"what": "kernel detect", "passed": False, "told": "AssertionError: 3 of 40\nand more"}]}  # fmt: skip
RESULTS = {1: {"kernels_smoke": SMOKE}, 2: {"steady": STEADY, "against": AGAINST},
           3: {"streams": STREAMS, "kernels": KERNELS}, 6: {"training": TRAINING}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    (tmp_path / "gpu").mkdir()
    return tmp_path / "gpu"


def write(folder: Path, results: dict[int, dict[str, Any]] = RESULTS, sources: str = "cuda-abc") -> None:
    for number, found in results.items():
        rows = [{"what": name, "result": "passed", "seconds": 20 + number, "code": 0} for name in found]
        rows.append({"what": "another", "result": "not run"})
        phase = {"phase": number, "title": "a title", "sources": sources, "rows": rows, "results": found}
        (folder / f"phase{number}.json").write_text(json.dumps(phase))


def test_without_phases_there_is_nothing(folder: Path) -> None:
    assert {name: make() for name, make in BLOCKS.items()} == dict.fromkeys(BLOCKS, "")
    page = "# page\n<!-- gpu-goals -->\nold\n<!-- /gpu-goals -->\n"
    assert rewrite(page, {"gpu-goals": BLOCKS["gpu-goals"]()}) == "# page\n<!-- gpu-goals -->\n\n<!-- /gpu-goals -->\n"


def test_readme_has_rows_of_both_sides_and_of_batches(folder: Path) -> None:
    write(folder)
    assert BLOCKS["gpu-summary"]().splitlines() == [
        "| RDN, ResNet-101, 600 x 1000, one GPU | ms a frame | times faster |",
        "|---|---:|---:|",
        "| straightforward torch implementation | 44.0 | 1.0 |",
        "| rdn_engine, fp16, one stream | 4.00 | 11.0 |",
        "| rdn_engine, fp16, 8 streams in a batch | 2.00 | 22.0 |",
        "| rdn_engine, fp16, 32 streams in a batch | 1.60 | 27.5 |",
        "",
        "Made-up GPU, 1.0; torch 2.11.0, numpy 2.5.2; 2030-01-02, commit 1df1fec56e.",
    ]


def test_what_was_wanted_stands_beside_what_came_out(folder: Path) -> None:
    write(folder)
    lines = BLOCKS["gpu-goals"]().splitlines()
    assert lines[2:7] == [
        "| relation stage, ms | under 0.12 | 0.11 | yes |",
        "| everything but convolutions and the large FC, ms | under 0.4 | 0.5 | no |",
        "| steady frame over its convolutions and FC | at most 1.5 | 1.31 | yes |",
        "| throughput of eight streams in a batch over one | at least 1.8 | 2 | yes |",
        "| calls in a frame that wait for the device | at most 0 | 0 | yes |",
    ]
    waiting = STEADY | {"waits": {"cudaStreamSynchronize": 2}}
    write(folder, {2: {"steady": waiting}})
    assert "| calls in a frame that wait for the device | at most 0 | 2 | no |" in BLOCKS["gpu-goals"]()


def test_every_step_and_every_check_that_failed_is_told(folder: Path) -> None:
    write(folder)
    lines = BLOCKS["gpu-checks"]().splitlines()
    assert (
        "| 1, a title | kernels_smoke | passed | 21 | 1 of 2 checks; kernel detect: AssertionError: 3 of 40 |" in lines
    )
    assert "| 6, a title | another | not run |  |  |" in lines
    assert len(lines) == 2 + sum(len(found) + 1 for found in RESULTS.values())


def test_phases_of_two_runs_are_not_mixed(folder: Path) -> None:
    write(folder)
    write(folder, {2: RESULTS[2]}, sources="cuda-abd")
    with pytest.raises(ValueError, match="of the sources cuda-abc, cuda-abd; wanted those of one run"):
        BLOCKS["gpu-checks"]()


def test_the_other_tables(folder: Path) -> None:
    write(folder)
    assert "| T = 3 | 3.80 | 0.950 |" in BLOCKS["gpu-dials"]()
    assert "| resize | 12.3 | 61% | 0% |" in BLOCKS["gpu-kernels"]()
    assert "Copy 4300 GB/s, matrix products 780 TFLOP/s" in BLOCKS["gpu-kernels"]()
    assert "| 4 | 210 | 3.1% | 14.2 |" in BLOCKS["gpu-training"]()


def test_a_run_that_was_cut_gives_the_tables_of_what_it_had(folder: Path) -> None:
    """A sweep that did not end says nothing, and a tree without a history is known by its digest."""
    cut = AGAINST | {"sweeps": swept("baseline", {"baseline": point(40.0), "x": point(4.0)}) | swept("ends", {}, False)}
    write(folder, {2: {"against": cut | {"commit": None}}})
    assert "rdn_engine, fp16, one stream | 4.00 | 10.0 |" in BLOCKS["gpu-summary"]()
    assert BLOCKS["gpu-summary"]().endswith("2030-01-02, sources cuda-abc.")
    assert [name for name, make in BLOCKS.items() if make()] == ["gpu-checks", "gpu-summary"]


def test_a_rehearsal_on_a_cpu_gives_nothing(folder: Path) -> None:
    write(folder, sources="cpu-abc")
    assert not any(make() for make in BLOCKS.values())
