"""What a long export says of itself where nobody watches a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from export.steps import shown


def test_a_log_has_a_line_for_each_step():
    log = io.StringIO()
    with shown(Console(file=log)) as report:
        report("ranges of values on 64 frames")
        report("int8 graph, [12%] of the convolutions in float32, ranges by " + "a very long name " * 10)
    lines = log.getvalue().splitlines()
    assert [re.fullmatch(r"\d+:\d\d (.*?) *", line)[1].split(",")[0] for line in lines] == [
        "ranges of values on 64 frames",
        "int8 graph",
    ]
    assert "[12%]" in lines[1]


def test_a_terminal_keeps_nothing_of_it():
    screen = io.StringIO()
    with shown(Console(file=screen, force_terminal=True, width=80)) as report:
        report("golden results")
    assert screen.getvalue().splitlines()[-1].endswith("\x1b[2K")
