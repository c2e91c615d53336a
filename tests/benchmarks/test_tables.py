"""Tables, pictures and counted operations of the benchmarks."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.frame import latency, settings
from benchmarks.frame.latency import DEMO
from benchmarks.frame.settings import Process, Setting
from benchmarks.kernel.arithmetic import projection_operations, relation_operations
from benchmarks.report import latency_report, report, store, tables
from rdn_engine.config import Dials, RelationConfig

BASE = Process(str(DEMO))


def test_tables_show_the_paper_at_its_own_point_only() -> None:
    def point(ms: float) -> dict[str, Any]:
        rounds = [{"ms": ms, "stages": {"relation": 5.0}, "joules": None, "proposals": 300}]
        return {"rounds": rounds, "peak_mb": None}

    points = {"3": point(100.0), "18": point(110.0), "24": point(115.0)}
    points = {v: p | latency.summarise(points, v, "18") for v, p in points.items()}
    results = {"sweeps": {"T": {"label": "T", "reference": "18", "points": points}}}
    lines = tables.sweep_table(results, "T").splitlines()
    assert [line.count("|") for line in lines] == [9] * 5
    assert [line.endswith("| 94.2 (1.000) |") for line in lines[2:]] == [False, True, False]
    assert "| 24 | 115 | 115 | 115 | ±0.0% | 5.00 | 1.045 |  |" in lines
    assert "| T = 24 over T = 3 | 1.150 | 1.14 |" in tables.growth_table({"ours": {"T": results}})


def test_throughput_is_the_reference_over_the_point_round_by_round() -> None:
    def point(*ms: float) -> dict[str, Any]:
        rounds = [{"ms": m, "stages": {}, "joules": None, "proposals": 300} for m in ms]
        return {"rounds": rounds, "peak_mb": None}

    points = {"1": point(100.0, 120.0, 110.0), "2": point(50.0, 40.0, 55.0)}
    points = {v: p | latency.summarise(points, v, "1") for v, p in points.items()}
    results = {"sweeps": {"interval": {"label": "interval", "reference": "1", "points": points}}}
    lines = tables.throughput_table(results, "interval").splitlines()
    assert lines[2:] == [
        "| 1 | 110 | 118 | 1.00 (1.00 to 1.00) |",
        "| 2 | 50.0 | 54.0 | 2.00 (2.00 to 3.00) |",
    ]


DEMO_RESULTS = store.RESULTS / "latency_demo.json"


def written(path: Path, results: dict[str, Any]) -> Path:
    path.write_text(json.dumps(results))
    return path


def test_the_page_and_the_pictures_of_a_run_come_from_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads(DEMO_RESULTS.read_text())
    results["sweeps"]["r"]["complete"] = False
    assert report.main([str(written(tmp_path / "mine.json", results))]) == 0
    names = ("mine.json", "mine.md", "mine_dials.svg", "mine_stages.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    text = (tmp_path / "mine.md").read_text()
    assert text in capsys.readouterr().out
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "T", "K", "first result", "against the straightforward implementation", "growth"]  # fmt: skip
    assert "| 18 | " in text
    assert "94.2 (1.000)" in text
    assert "T = 24 over T = 3" in text
    assert "K = 300" not in text, "measured up to 150"
    assert f"{results['machine']['cpu']}, " in text
    assert f"commit {results['commit'][:10]}. `{store.command(results)}`" in text
    for name in names[2:]:
        assert f"]({name})" in text
        assert "<svg" in (tmp_path / name).read_text()
    dials = (tmp_path / "mine_dials.svg").read_text()
    assert dials.count("frames on each side") == 1
    assert "part refined" not in dials, "this sweep was not measured to the end"


def test_a_run_without_dials_or_without_matplotlib_has_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = json.loads(DEMO_RESULTS.read_text())
    some = results | {"sweeps": {"first": results["sweeps"]["first"]}}
    assert latency_report.write(written(tmp_path / "first.json", some)) == [tmp_path / "first.md"]
    monkeypatch.setitem(sys.modules, "benchmarks.report.performance_plots", None)
    monkeypatch.delattr("benchmarks.report.performance_plots", raising=False)
    assert latency_report.write(written(tmp_path / "bare.json", results)) == [tmp_path / "bare.md"]
    assert "![" not in (tmp_path / "bare.md").read_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ('{"kernels": []}', "has no sweep"),
        ('{"sweeps": {"T": {"points": {}}}}', "has no sweep measured to the end"),
    ],
)
def test_a_page_of_anything_else_is_refused(tmp_path: Path, text: str | None, found: str) -> None:
    path = tmp_path / "mine.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=rf"mine\.json .*{found}.*wanted what benchmarks/frame/latency\.py wrote"):
        report.main([str(path)])
    assert not path.with_suffix(".md").exists()


def test_operations_of_a_relation_stage_are_those_of_its_parts() -> None:
    # S = 10 supports of 5 frames; with r = 50% one of each is refined.
    dials = Dials(window=2, num_support=2, num_reference=3, advanced_ratio=0.5)
    dim, heads, logits = 32, 2, 4
    pair, square = 2 * (2 * dim + 16 * heads), 2 * dim * dim
    outputs = 2 * 3 * dim * (logits + 4 * logits)

    def count(num_basic: int, advanced: bool, fc: bool = False) -> float:
        return relation_operations(RelationConfig(dim, heads, num_basic, advanced, fc), dials, logits)

    assert count(0, False) == outputs
    assert count(1, False) == outputs + 3 * 10 * pair
    # Two modules, and an FC and a query between them for each reference proposal.
    assert count(2, False) == outputs + 2 * 3 * 10 * pair + 2 * 3 * square
    # The new frame's row against 10, four rows against the two that came and the two that went; keys and values of
    # five, and a query for each reference proposal.
    refinement, distillation = (10 + 4 * 4) * pair, (3 + 2 * 5) * square + 3 * 5 * pair
    assert count(1, True) == count(1, False) + refinement + distillation
    assert count(1, True, fc=True) == count(1, True) + 5 * square
    # Three queries; of two proposals keys and values of the basic module and of the refinement, and its query.
    assert projection_operations(RelationConfig(dim, heads, 1, True, False), dials) == (3 + 2 * 5) * square
    assert projection_operations(RelationConfig(dim, heads, 1, False, False), dials) == (3 + 2 * 2) * square


def test_least_growth_leaves_the_rest_of_the_frame_as_it_is() -> None:
    dials = Dials(window=3, num_support=75, num_reference=300, advanced_ratio=0.2)
    longer = replace(dials, window=24)

    def point(ms: float, relation: float, at: Dials) -> dict[str, Any]:
        setting = Setting(BASE, at).to_dict()
        return {"ms": {"p50": ms}, "stages_ms": {"relation": relation}, "setting": setting}

    points = {"3": point(100, 20, dials), "18": point(130, 50, dials), "24": point(150, 70, longer)}
    relation = RelationConfig()
    results = {
        "sweeps": {"T": {"reference": "18", "points": points}},
        "bundles": {settings.bundle_label(str(DEMO)): {"relation": dataclasses.asdict(relation), "classes": 30}},
    }
    few, many = (relation_operations(relation, d, 31) for d in (dials, longer))
    assert tables.least_growth(results, "T", 100) == pytest.approx((80 + many / 1e8) / (80 + few / 1e8))
    assert tables.least_growth(results, "T", 1e9) == pytest.approx(1, abs=1e-4)
    assert tables.least_growth(results, "r", 100) is None
