"""The committed bundle computes its golden results; one whose golden results do not fit is refused by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.verify import STAGES, box_rows, set_difference, verify

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("t0/xyxy", lambda a: a[:, :3], r"t0/xyxy is float32 \[\d+, 3\]; wanted finite float32 \[\d+, 4\]"),
        ("t1/confidence", lambda a: a[:-1], "t1/confidence"),
        ("t0/boxes", lambda a: a * np.float32(np.nan), "t0/boxes"),
        ("t0/boxes", lambda a: a.astype(np.float64), r"t0/boxes is float64"),
        ("t2/objectness", lambda a: a[:, None], "t2/objectness"),
        ("t0/features", lambda a: a.astype(str), "t0/features"),
        ("frames", lambda a: a.astype(np.float32), "golden frames"),
        ("t0/logits", None, "t0/logits is missing"),
    ],
)
def test_golden_results_must_fit(tmp_path: Path, name: str, damage: Callable[[Any], Any] | None, message: str) -> None:
    engines = tmp_path / "engines"
    shutil.copytree(ENGINES, engines)
    with np.load(engines / "golden.npz") as archive:
        golden = dict(archive)
    array = golden.pop(name)
    if damage is not None:
        golden[name] = damage(array)
    np.savez(engines / "golden.npz", **golden)
    manifest = json.loads((engines / "manifest.json").read_text())
    data = (engines / "golden.npz").read_bytes()
    manifest["files"]["golden.npz"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (engines / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        verify(engines)


@pytest.mark.isa
def test_how_far_away_an_edge_is_does_not_matter() -> None:
    far = np.array([[-3e8, 10, 5e9, 20]], np.float32)
    near = np.array([[10, 10, 40, 20]], np.float32)

    def apart(got: Any, wanted: Any) -> float:
        return set_difference([box_rows(np.float32(got), 100)], [box_rows(np.float32(wanted), 100)])

    assert apart(far, far * np.float32(1.00001)) < 1e-5
    assert apart(far, far + np.float32([0, 7, 0, 0])) == pytest.approx(0.07)
    assert apart(near, near + np.float32([0, 0, 3, 0])) == pytest.approx(0.03)
    assert apart(near, far) >= 1
    for value in (np.inf, -np.inf, np.nan):
        assert apart(near * np.float32([1, 1, value, 1]), near) == np.inf


def test_the_committed_model_computes_its_golden_results() -> None:
    """Which were stored on another processor; the tolerances come with them, measured (export/golden.py)."""
    reports = verify(ENGINES)
    assert {report.stage for report in reports} == set(STAGES)
    assert [report for report in reports if not report.passed] == []


@pytest.mark.parametrize("threads", [0, -3, 100_000, 1.5, "2", True])
def test_threads_out_of_range_are_refused(threads: Any) -> None:
    with pytest.raises(ConfigError, match="threads is"):
        verify(ENGINES, threads=threads)
