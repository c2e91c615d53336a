"""The table of intervals says what each loses, and how well that is known."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import interval_tables, store
from benchmarks.report.store import Unmeasured


def row(ap50: float) -> dict[str, float]:
    return dict.fromkeys(interval_tables.COLUMNS, ap50)


def results(*losses: float) -> dict[str, Any]:
    """Of seeds that lose so much at interval 2."""
    rows = [
        {
            "causal, off, 1": row(80.0 + i),
            "causal, off, 2": row(80.0 + i - loss),
            "true motion, off, 2": row(80.5 + i - loss),
        }
        for i, loss in enumerate(losses)
    ]
    mean = {name: row(sum(one[name]["all"] for one in rows) / len(rows)) for name in rows[0]}
    return {
        "model": "a model",
        "protocol": "VID",
        "intervals": [1, 2],
        "links": ["off"],
        "seeds": {str(i): {"data": "videos", "frames": 24, "rows": one} for i, one in enumerate(rows)},
        "rows": mean,
        "times": {"causal, off, 1": 1.0, "causal, off, 2": 1.9},
        "timed": [9, 120],
        "machine": {"cpu": "a processor", "cores": 2, "kernels": "avx2"},
        "versions": {"torch": "2", "onnxruntime": "1", "numpy": "2"},
        "date": "2026-12-01",
        "commit": "0123456789abcdef",
        "command": "python interval_accuracy.py",
    }


@pytest.mark.parametrize(
    ("losses", "cell"),
    [
        ((1.0,), "-1.00 (-1.00 to -1.00)"),
        ((1.0, 2.0, 6.0), "-3.00 ± 1.53 (-6.00 to -1.00)"),  # deviation 2.646, over the root of 3
    ],
)
def test_a_loss_is_the_mean_of_the_seeds_with_its_standard_error(
    losses: tuple[float, ...], cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    with pytest.raises(Unmeasured):
        interval_tables.interval()
    (tmp_path / "interval_accuracy.json").write_text(json.dumps(results(*losses)))
    first, second = interval_tables.interval().splitlines()[2:4]
    assert first.endswith("|  | 1.00 |")
    assert second.endswith(f"| {cell} | 1.90 |")
    [moved] = interval_tables.bounds().splitlines()[2:]
    assert moved.startswith("| true motion, no links | 2 |")
    assert f"{0.5 - statistics.mean(losses):+.2f}" in moved
