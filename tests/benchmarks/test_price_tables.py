"""The price list: a column for each model and machine, AP50 where it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.frame import latency
from benchmarks.report import price_tables, store
from benchmarks.report.store import Unmeasured

PROVENANCE = {"date": "2026-11-29", "commit": "0123456789abcdef", "command": "python latency.py"}


def results(kernels: str, sweep: str, reference: str, **ms: float) -> dict[str, Any]:
    points = {v: {"rounds": [{"ms": m, "stages": {}, "joules": None, "proposals": 9}] * 2} for v, m in ms.items()}
    points = {v: p | latency.summarise(points, v, reference) for v, p in points.items()}
    found = {"label": sweep, "reference": reference, "points": points, "complete": True, "measured": PROVENANCE}
    return {
        "sweeps": {sweep: found},
        "machine": {"cpu": "a processor", "cores": 2, "kernels": kernels},
        "versions": {"numpy": "2"},
        **PROVENANCE,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    return tmp_path


def test_machines_stand_side_by_side_and_what_is_missing_is_empty(folder: Path) -> None:
    with pytest.raises(Unmeasured):
        price_tables.prices()
    of = {
        "demo_avx2": results("avx2", "interval", "1", **{"1": 10.0, "2": 5.0}),
        "demo_avx512_bf16": results("avx512_bf16", "interval", "1", **{"1": 8.0, "2": 4.1, "3": 2.0}),
        "r101_int8_avx2": results("avx2", "ring", "float32", float32=900.0, float16=800.0),
    }
    for name, one in of.items():
        (folder / f"prices_{name}.json").write_text(json.dumps(one))
    lines = price_tables.prices().splitlines()
    columns = [cell.strip() for cell in lines[0].split("|")[3:-1]]
    assert [one.split(":")[0] for one in columns] == ["demo, avx2", "demo, avx512_bf16", "ResNet-101, INT8, avx2"]
    assert lines[2:7] == [
        "| interval 1 |  | 10.0 (1.00) | 8.00 (1.00) |  |",
        "| interval 2 |  | 5.00 (2.00) | 4.10 (1.95) |  |",
        "| interval 3 |  |  | 2.00 (4.00) |  |",
        "| ring float32 |  |  |  | 900 (1.00) |",
        "| ring float16 |  |  |  | 800 (1.12) |",
    ]
    assert len([line for line in lines if line.startswith("- ") and "a processor" in line]) == 3
    assert list(price_tables.priced("ring")) == ["ResNet-101, INT8, avx2"]
    with pytest.raises(Unmeasured):
        price_tables.priced("backend")


def test_losses_of_accuracy_stand_in_their_rows(folder: Path) -> None:
    rows = {
        f"{a}, off, {n}": {"all": 80.0 - n * (a == "causal")} for a in ("look-ahead", "causal") for n in (1, 2, 3, 4)
    }
    (folder / "interval_accuracy.json").write_text(json.dumps({"rows": rows}))
    one = results("avx2", "interval", "1", **{"1": 10.0, "4": 3.0})
    (folder / "prices_demo_avx2.json").write_text(json.dumps(one))
    lines = price_tables.prices().splitlines()
    assert lines[2:4] == ["| interval 1 |  | 10.0 (1.00) |", "| interval 4 | +0.0, causal -3.0 | 3.00 (3.33) |"]
    rings = {"float32": {"AP50": 83.0}, "float16": {"AP50": 82.9}}
    backends = {"onnxruntime": {"AP50": 83.0}, "openvino": {"AP50": 83.02}}
    (folder / "ring_accuracy.json").write_text(json.dumps({"rings": rings, "backends": backends}))
    assert price_tables._losses("ring") == {"float16": "-0.10"}
    assert price_tables._losses("backend") == {"openvino": "+0.02"}
    still = {"0": {"all": 80.0, "still": 0.0}, "4": {"all": 79.9, "still": 0.8}}
    (folder / "still_accuracy.json").write_text(json.dumps({"rows": still}))
    assert price_tables._losses("threshold") == {"4": "-0.1 (80% still)"}


def test_what_tune_misses(folder: Path) -> None:
    row = {"budget": 0.5, "within": 600, "scored": 40, "AP50": 80.0, "AP50_sweep": 80.3, "held_out": 79.0,
           "held_out_sweep": 78.9, "dials": {"T": 4, "r": 0.25}}  # fmt: skip
    about = {"protocol": "VID", "data": "drawn", "held_out": "others", "frames": 9, "model": "m", **PROVENANCE}
    (folder / "tune_accuracy.json").write_text(json.dumps({"rows": {"any": [row]}, **about}))
    assert "| any | 50% | 600 | 40 | 80.0 | 80.3 | -0.30 | 79.0 | 78.9 | T 4, r 0.25 |" in price_tables.tuning()
