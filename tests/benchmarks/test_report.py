"""Figures on the pages are those of the committed results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report.report import rewrite

ROOT = Path(__file__).parents[2]


def test_pages_say_what_the_results_say() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/report/report.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_block_is_replaced_between_its_markers_only() -> None:
    page = "before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n"
    assert rewrite(page, {"speed": "new"}) == "before\n<!-- speed -->\nnew\n<!-- /speed -->\nafter\n"


def test_an_unknown_marker_is_an_error() -> None:
    with pytest.raises(SystemExit, match="speed"):
        rewrite("<!-- speed -->\n\n<!-- /speed -->", {})
