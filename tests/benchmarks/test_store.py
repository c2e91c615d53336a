"""The one store of results: what is read, what a table and a line of provenance say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import store
from benchmarks.report.store import Unmeasured

RUN: dict[str, Any] = {
    "command": "python a.py --b",
    "date": "2026-11-23",
    "commit": "1df1fec56e0123456789",
    "versions": {"python": "3.11", "numpy": "2.4.6", "torch": "2.15.0"},
    "machine": {"cpu": "a CPU", "cores": 2, "kernels": "avx2"},
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    return tmp_path


def test_only_sweeps_measured_to_the_end_are_read(results: Path) -> None:
    sweeps = {"T": {"complete": True}, "K": {}, "r": {"complete": False}}
    (results / "a.json").write_text(json.dumps({"sweeps": sweeps}))
    (results / "b.json").write_text(json.dumps({"rows": [1]}))
    assert store.load("a.json") == {"sweeps": {"T": {"complete": True}}}
    assert store.load("b.json") == {"rows": [1]}
    assert store.there(a="a.json", c="c.json") == {"a": store.load("a.json")}
    assert list(store.having("T", a="a.json", c="c.json")) == ["a"]
    with pytest.raises(Unmeasured, match="K"):
        store.having("K", a="a.json")
    with pytest.raises(Unmeasured, match=r"c\.json"):
        store.load("c.json")


def test_seeds_are_those_with_a_file(results: Path) -> None:
    (results / "accuracy").mkdir()
    for name in ("full-2", "full-0", "full-0-old", "basic-1", "basic1-3"):
        (results / "accuracy" / f"{name}.json").write_text("{}")
    assert store.seeds("accuracy/full") == [0, 2]
    assert store.seeds("accuracy/basic") == [1]


def test_a_table_has_text_first_and_numbers_after_it() -> None:
    assert store.table(["a", "b"], [["x", "1"], ["y", ""]]) == "| a | b |\n|---|---:|\n| x | 1 |\n| y |  |"
    assert store.table(["a", "b", "c"], [], "rrl").splitlines()[1] == "|---:|---:|---|"


@pytest.mark.parametrize(("rows", "align"), [([["x"]], ""), ([["x", "1", "2"]], ""), ([], "l")])
def test_a_row_that_does_not_fit_its_header_is_an_error(rows: list[list[str]], align: str) -> None:
    with pytest.raises(ValueError, match=r"\['a', 'b'\] got .*; wanted 2 cells"):
        store.table(["a", "b"], rows, align)


def test_provenance_is_one_line() -> None:
    run = "2026-11-23, commit 1df1fec56e. `python a.py --b`"
    assert store.provenance(RUN) == run
    assert store.provenance(RUN, counted=store.count(1, "round")) == f"1 round. {run}"
    where = "a CPU, 2 cores, kernels avx2; torch 2.15.0, numpy 2.4.6"
    assert store.provenance(RUN, counted=store.count(5, "round"), on=RUN) == f"5 rounds. {where}; {run}"
    assert "commit None. " in store.provenance(RUN | {"commit": None}), "measured outside a checkout"


def test_a_command_names_the_script_where_it_lies_now() -> None:
    moved = {"command": "python benchmarks/latency.py --output benchmarks/latency.py"}
    assert store.command(moved) == "python benchmarks/frame/latency.py --output benchmarks/latency.py"
    assert store.command(RUN) == RUN["command"]
    assert not [path for path in store.MOVED if (store.ROOT / path).exists()]
