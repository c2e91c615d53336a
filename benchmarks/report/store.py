"""The results behind the pages: where they lie, how they are read, how their tables and provenance are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

Results = dict[str, Any]
"""What one results file holds"""

MOVED = {
    "benchmarks/compare.py": "benchmarks/frame/compare.py",
    "benchmarks/from_nothing.py": "benchmarks/quality/from_nothing.py",
    "benchmarks/kernels.py": "benchmarks/kernel/kernels.py",
    "benchmarks/latency.py": "benchmarks/frame/latency.py",
    "benchmarks/linking.py": "benchmarks/frame/linking.py",
    "benchmarks/linking_accuracy.py": "benchmarks/quality/linking_accuracy.py",
    "benchmarks/relation.py": "benchmarks/kernel/relation.py",
    "training/evaluate.py": "export/evaluate.py",
}
"""Where a script lay when results were made with it -> where it lies now. Results keep the command that made them,
pages print the one that makes them now.
"""


class Unmeasured(LookupError):
    """There are no results of what was asked for."""


def load(name: str) -> Results:
    """One results file.

    Args:
        name: path below benchmarks/results.

    Returns:
        What the file holds; of its sweeps those that were measured to the end.

    Raises:
        Unmeasured: there is no such file.
    """
    path = RESULTS / name
    if not path.exists():
        raise Unmeasured(name)
    return read(path)


def read(path: Path) -> Results:
    """As `load`, of a file anywhere; OSError where it cannot be read, ValueError where it is no JSON."""
    results: Results = json.loads(path.read_text())
    if "sweeps" not in results:
        return results
    return results | {"sweeps": {name: s for name, s in results["sweeps"].items() if s.get("complete")}}


def there(**files: str) -> dict[str, Results]:
    """title -> results, of the files that have been measured."""
    return {title: load(name) for title, name in files.items() if (RESULTS / name).exists()}


def having(sweep: str, **files: str) -> dict[str, Results]:
    """title -> results, of the files in which `sweep` was measured; Unmeasured where it is none."""
    found = {title: results for title, results in there(**files).items() if sweep in results["sweeps"]}
    if not found:
        raise Unmeasured(sweep)
    return found


def seeds(stem: str) -> list[int]:
    """The seeds, 0 to 9, for which there is a file `stem`-SEED.json, in order."""
    return [seed for seed in range(10) if (RESULTS / f"{stem}-{seed}.json").exists()]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A table in Markdown.

    Args:
        header: a name for each column.
        rows: the cells of each row, as many as the header has.
        align: a letter a column, `l` for text and `r` for numbers; by default the first is text, the others numbers.

    Returns:
        The lines, joined.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    rules = {"l": "---", "r": "---:"}
    rule = [rules[letter] for letter in align or "l" + "r" * (len(header) - 1)]
    for line in (rule, *rows):
        if len(line) != len(header):
            raise ValueError(f"a table of the columns {list(header)} got {list(line)}; wanted {len(header)} cells")
    return "\n".join([_row(header), f"|{'|'.join(rule)}|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def provenance(measured: Mapping[str, Any], *, counted: str = "", on: Mapping[str, Any] | None = None) -> str:
    """Where figures come from, in one line: `5 rounds. 2026-11-23, commit 1df1fec56e. ...`.

    Args:
        measured: has the date, the commit and the command of the run.
        counted: how much was measured, such as `count(5, "round")`.
        on: results whose machine and libraries are to be named; None where another line names them.

    Returns:
        The line.
    """
    ran = f"{measured['date']}, commit {commit(measured)}. `{command(measured)}`"
    return (f"{counted}. " if counted else "") + (f"{machine(on)}; " if on is not None else "") + ran


def machine(results: Mapping[str, Any]) -> str:
    """Processor, kernels and the libraries that a figure depends on."""
    about, versions = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "numpy") if name in versions)
    hidden = f" ({about['hidden']} hidden)" if "hidden" in about else ""
    return f"{about['cpu']}{hidden}, {about['cores']} cores, kernels {about['kernels']}; {packages}"


def commit(measured: Mapping[str, Any]) -> str:
    """As the pages write it; `None` where the results do not know it."""
    return str(measured["commit"])[:10]


def command(measured: Mapping[str, Any]) -> str:
    """The command that measures it, with its script where it lies now."""
    told: str = measured["command"]
    script = next((word for word in told.split(" ") if word in MOVED), "")
    return told.replace(script, MOVED[script], 1) if script else told


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
