"""Writes the figures of README and docs from the committed results: `python benchmarks/report/report.py [--check]`.

A figure stands between `<!-- name -->` and `<!-- /name -->`; the text between them is replaced. `--check` changes
nothing and exits 1 where a page does not say what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.report import accuracy_tables, linking_tables, performance

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return data


def rewrite(page: str, blocks: dict[str, str]) -> str:
    """`page` with the text between each pair of markers replaced; an unknown or missing marker is an error."""
    for name in re.findall(r"<!-- ([\w-]+) -->", page):
        if name not in blocks:
            raise SystemExit(f"marker {name!r} has no results; known are {sorted(blocks)}")
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)",
            partial(_filled, blocks[name]),
            page,
            flags=re.DOTALL,
        )
    return page


def _filled(block: str, markers: re.Match[str]) -> str:
    return f"{markers[1]}{block}\n{markers[2]}"


def rdn_tiny() -> str:
    """Single-frame detector against RDN on the held-out synthetic videos."""
    single, rdn = load("accuracy_single_tiny.json"), load("accuracy_rdn_tiny.json")
    rows = [_ap50_columns(result) for result in (single, rdn)]
    data = rdn["data"]
    lines = [
        f"| AP50, {data['videos']} videos, {data['frames']} frames | " + " | ".join(rows[0]) + " |",
        "|---|" + "---:|" * len(rows[0]),
    ]
    for name, row in zip(("single-frame detector", "RDN"), rows, strict=True):
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
    gains = [rows[1][key] - rows[0][key] for key in rows[0]]
    lines.append("| difference | " + " | ".join(f"{gain:+.1f}" for gain in gains) + " |")
    coco = f"AP50 in COCO's protocol: {single['coco']['AP50']:.1f} and {rdn['coco']['AP50']:.1f}."
    return "\n".join([*lines, "", f"{rdn['vid']['protocol']}. {coco} Commit {rdn['commit'][:10]}, `{rdn['command']}`."])


def from_nothing() -> str:
    """What rdn_tiny.yaml takes and comes to from drawn weights."""
    result = load("from_nothing.json")
    minutes, columns = result["minutes"], _ap50_columns(result)
    found = ", ".join(f"{name} {value:.1f}" for name, value in columns.items())
    phases = ", ".join(f"{name} {value:.0f}" for name, value in minutes.items())
    threads = f"{result['threads']} thread{'s' if result['threads'] != 1 else ''}"
    return (
        f"`training/configs/rdn_tiny.yaml` from drawn weights, with {threads} on {result['machine']['cpu']}: "
        f"{sum(minutes.values()):.0f} minutes ({phases}). AP50 of the same held-out videos: {found}. "
        f"Commit {result['commit'][:10]}, `{result['command']}`."
    )


def _ap50_columns(result: dict[str, Any]) -> dict[str, float]:
    """The VID protocol's figures of a result of export/evaluate.py, under the names of their columns."""
    conditions, speed = result["vid"]["conditions"], result["speed"]
    return {
        "all": result["vid"]["AP50"],
        **{f"{name} objects": speed[name]["AP50"] for name in ("slow", "medium", "fast")},
        "clear frames": conditions["clear"]["AP50"],
        "blurred or dim frames": conditions["degraded"]["AP50"],
    }


def parity() -> str:
    """The public implementation's results and ours against float64, of each stage the frame where ours is furthest."""
    result = load("parity.json")
    head = "| what | stage | of all values | stored | allowed | ours | allowed | apart | unit |"
    rows = [head, "|---|---|---|---:|---:|---:|---:|---:|---|"]
    names = ("stored", "stored_tolerance", "ours", "tolerance", "apart")
    for r in result["rows"]:
        values = " | ".join(f"{r[name]:.2g}" for name in names)
        rows.append(f"| {r['what']} | {r['stage']} | {r['measure']} | {values} | {r['unit']} |")
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "onnxruntime", "numpy"))
    return "\n".join(
        [*rows, "", f"Commit {result['commit'][:10]}, {versions}, kernels {result['machine']['kernels']}."]
    )


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"accuracy-gains": accuracy_tables.gains} | performance.README,
    "docs/accuracy.md": accuracy_tables.BLOCKS,
    "models/rdn_tiny/README.md": {"rdn-tiny": rdn_tiny, "from-nothing": from_nothing},
    "docs/parity.md": {"parity": parity},
    "docs/linking.md": linking_tables.BLOCKS,
    "docs/performance.md": performance.BLOCKS,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is out of date")
    arguments = parser.parse_args()
    if not arguments.check:
        # Here, because a check needs no pictures: another version of the library draws them a little differently.
        from benchmarks.report import accuracy_plots
        from benchmarks.report.performance_plots import draw

        draw(ROOT / "docs" / "media")
        accuracy_plots.draw(ROOT / "docs" / "media" / "accuracy.svg")
        linking_tables.draw(ROOT / "docs" / "media" / "linking_delay.svg")
    stale = []
    for name, blocks in PAGES.items():
        path = ROOT / name
        before = path.read_text()
        after = rewrite(before, {marker: make() for marker, make in blocks.items()})
        if after == before:
            continue
        stale.append(name)
        if not arguments.check:
            path.write_text(after)
    if stale:
        print(("out of date: " if arguments.check else "rewritten: ") + ", ".join(stale))
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
