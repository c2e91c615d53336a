"""The page of one run of latency.py: every table in Markdown, and pictures of the dials and of the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.frame.settings import bundle_label
from benchmarks.report import store, tables
from benchmarks.report.store import Results


def write(path: Path) -> list[Path]:
    """Write the page of a results file beside it.

    Args:
        path: what benchmarks/frame/latency.py wrote.

    Returns:
        `path` with the suffix .md, and with _dials.svg and _stages.svg what the measured sweeps give to draw. Without
        matplotlib there are no pictures.

    Raises:
        SystemExit: it cannot be read, or is not one of latency.py.
    """
    results = _read(path)
    pictures = _draw(results, path.with_suffix(""))
    page = path.with_suffix(".md")
    links = "".join(f"![{title}]({picture.name})\n\n" for title, picture in pictures.items())
    run = store.provenance(results, on=results)
    page.write_text(f"# What a frame costs\n\n{run}\n\n{links}{tables.sweep_tables(results)}\n")
    return [page, *pictures.values()]


def _read(path: Path) -> Results:
    try:
        results = store.read(path)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read ({error}); wanted what benchmarks/frame/latency.py wrote") from error
    if not results.get("sweeps"):
        raise SystemExit(f"{path} has no sweep measured to the end; wanted what benchmarks/frame/latency.py wrote")
    return results


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
