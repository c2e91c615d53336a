"""What latency.py leaves beside its JSON: every table in Markdown, and pictures of the dials and of the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.frame.settings import bundle_label
from benchmarks.report import tables
from benchmarks.report.performance import provenance, to_the_end

Results = dict[str, Any]


def write(results: Results, output: Path) -> list[Path]:
    """`output` with the suffix .md, and with _dials.svg and _stages.svg what the measured sweeps give to draw; returns
    what was written. Without matplotlib there are no pictures.
    """
    complete = to_the_end(results)
    pictures = _draw(complete, output.with_suffix(""))
    page = output.with_suffix(".md")
    links = "".join(f"![{title}]({path.name})\n\n" for title, path in pictures.items())
    page.write_text(f"# What a frame costs\n\n{provenance(results)}\n\n{links}{tables.sweep_tables(complete)}\n")
    return [page, *pictures.values()]


def _draw(results: Results, stem: Path) -> dict[str, Path]:
    """Title -> picture."""
    try:
        from benchmarks.report import performance_plots as plots
    except ImportError:
        return {}
    pictures = {}
    dials = [name for name in tables.PAPER_GROWTH if name in results["sweeps"]]
    if dials:
        path = pictures["Growth along the dials"] = stem.with_name(f"{stem.name}_dials.svg")
        plots.draw_dials({"measured": dict.fromkeys(dials, results)}, path)
    points = _steady(results, [*dials, "bundles"])
    if points:
        path = pictures["Stages of a steady frame"] = stem.with_name(f"{stem.name}_stages.svg")
        plots.draw_stages(points, path)
    return pictures


def _steady(results: Results, names: list[str]) -> dict[str, Any]:
    """Bundle -> its point at the reference setting, of the first of the sweeps that has it."""
    points: dict[str, Any] = {}
    for sweep in (results["sweeps"][name] for name in names if name in results["sweeps"]):
        for value, point in sweep["points"].items():
            if value == sweep["reference"] or sweep["label"] == "bundle":
                points.setdefault(bundle_label(point["setting"]["process"]["engines"]), point)
    return points
