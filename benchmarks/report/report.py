"""Writes the figures of README and docs from the committed results, and the page of a run of your own.

    python benchmarks/report/report.py [--check]
    python benchmarks/report/report.py my_latency.json

A figure stands between `<!-- name -->` and `<!-- /name -->`; the text between them is replaced. `--check` changes
nothing and exits 1 where a page does not say what the results say. For a file that benchmarks/frame/latency.py wrote,
the tables and the pictures of its sweeps come beside it: my_latency.md, my_latency_dials.svg, my_latency_stages.svg.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.report import (
    accuracy_tables,
    evaluation_tables,
    gpu_tables,
    latency_report,
    linking_tables,
    performance,
    real_tables,
    scale_tables,
    serve_tables,
    store,
    triton_tables,
)
from benchmarks.report.store import ROOT, load, table
from training.arguments import given_path


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
    found = {"single-frame detector": _ap50_columns(single), "RDN": _ap50_columns(rdn)}
    data = rdn["data"]
    header = [f"AP50, {data['videos']} videos, {data['frames']} frames", *found["RDN"]]
    rows = [[name, *(f"{value:.1f}" for value in row.values())] for name, row in found.items()]
    before, after = found.values()
    rows.append(["difference", *(f"{after[key] - before[key]:+.1f}" for key in after)])
    coco = f"AP50 in COCO's protocol: {single['coco']['AP50']:.1f} and {rdn['coco']['AP50']:.1f}."
    source = f"Commit {store.commit(rdn)}, `{store.command(rdn)}`."
    return "\n".join([table(header, rows), "", f"{rdn['vid']['protocol']}. {coco} {source}"])


def rdn_mini() -> str:
    """The small anchor-free model against rdn_tiny: AP50 on the same videos, and a frame side by side."""
    tiny, mini = load("accuracy_rdn_tiny.json"), load("accuracy_rdn_mini.json")
    before, after = _ap50_columns(tiny), _ap50_columns(mini)
    if tiny["data"] != mini["data"]:
        raise SystemExit(f"rdn_tiny was evaluated on {tiny['data']}, rdn_mini on {mini['data']}; wanted the same")
    header = [f"AP50, {mini['data']['videos']} videos, {mini['data']['frames']} frames", *after]
    named = {"rdn_tiny": before, "rdn_mini": after}
    rows = [[name, *(f"{value:.1f}" for value in row.values())] for name, row in named.items()]
    rows.append(["difference", *(f"{after[key] - before[key]:+.1f}" for key in after)])
    runs, times = [], []
    for path in sorted(store.RESULTS.glob("frame_rdn_mini_*.json")):
        result = store.read(path)
        first, own = result["rows"]
        times.append([result["machine"]["kernels"], f"{first['ms']['p50']:.2f}", f"{own['ms']['p50']:.2f}",
                      f"{own['over_first']['p50']:.3f}"])  # fmt: skip
        runs.append(f"- {result['machine']['kernels']}: {store.provenance(result, on=result)}")
    told = "A steady frame at each model's own dials, 192 x 128, in CPU time of one thread, in turns:"
    source = f"{mini['vid']['protocol']}. Commit {store.commit(mini)}, `{mini['command']}`."
    columns = ["kernels", "rdn_tiny, ms", "rdn_mini, ms", "that / rdn_tiny"]
    return "\n".join([table(header, rows), "", source, "", told, "", table(columns, times), "", *runs])


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
        f"Commit {store.commit(result)}, `{store.command(result)}`."
    )


def frozen_detector() -> str:
    """A detector that stays as it is, alone and with relations trained on it."""
    result = load("frozen_detector.json")
    columns = {"all": "AP50", **{f"{name} objects": name for name in ("slow", "medium", "fast")}}
    (alone,), related = ([row for row in result["rows"] if row["head"] == head] for head in ("detector", "relations"))
    mean = {key: sum(row[key] for row in related) / len(related) for key in columns.values()}
    videos, frames = result["held_out"]
    header = [f"AP50, {videos} videos of {frames} frames", *columns]
    rows = [
        ["detector alone", *(f"{alone[key]:.1f}" for key in columns.values())],
        [f"relations, mean of {store.count(len(related), 'seed')}", *(f"{mean[key]:.1f}" for key in columns.values())],
        ["difference", *(f"{mean[key] - alone[key]:+.1f}" for key in columns.values())],
    ]
    gains = ", ".join(f"{row['AP50'] - alone['AP50']:+.1f}" for row in related)
    text = f"Differences of the seeds: {gains}. "
    return "\n".join([table(header, rows), "", text + store.provenance(result, on=result)])


def own_detector_cost() -> str:
    """What a stream does beside a detector's own graph."""
    result = load("own_detector_cost.json")
    sides = {"alone": "graph", "detector": "stream"}
    header = ["proposals", "frames in the window", *(f"its {side} alone, ms" for side in sides.values())]
    header += ["stream with relations, ms", *(f"that over its {side}" for side in sides.values())]
    rows = []
    for row in result["rows"]:
        cells = [f"{row[side]['p50']:.0f}" for side in (*sides, "stream")]
        cells += [f"{row[f'stream_over_{side}']['p50']:.3f}" for side in sides]
        rows.append([str(row["proposals"]), str(row["window_frames"]), *cells])
    stages = [f"{row['proposals']} proposals: {_stages(row['stages_ms']['stream'])}." for row in result["rows"]]
    told = f"Milliseconds of the stream by stage, wall clock: {' '.join(stages)}"
    return "\n".join([table(header, rows), "", told, "", store.provenance(result, on=result)])


def own_detector_frames() -> str:
    """A whole frame of a detector with relations, in either precision, beside another model's; for each processor."""
    found = store.there(
        first="own_detector_cost.json", amx="own_detector_cost_amx.json", avx2="own_detector_cost_avx2.json"
    )
    rows, notes = [], []
    for result in found.values():
        for row in result["rows"]:
            rows += _precisions(row, result["machine"]["kernels"])
        videos, frames = result["held_out"]
        points = ", ".join(f"{name} {value:.1f}" for name, value in result["AP50"].items())
        note = f"AP50 of {videos} rendered videos of {frames} frames: {points}."
        if result["int8_refused"]:
            note += f" INT8 was refused: {result['int8_refused']}."
        else:
            agreed = result["agreement"]
            note += f" INT8 agrees with float32 on {agreed['share']:.1%} of {agreed['detections']} detections."
        notes.append(f"{note} {store.provenance(result, on=result)}")
    other = next(iter(found.values()))["against"]
    name = f"{other['name']} in {other['precision']}"
    header = ["kernels", "proposals", "precision", "backend", "frame, ms", f"{name}, ms", "that / frame"]
    header += [f"{name}, its fastest backend, ms", "that / frame"]
    return "\n".join([table(header, rows, "lrllrrrrr"), "", "\n\n".join(notes)])


def _precisions(row: dict[str, Any], kernels: str) -> list[list[str]]:
    """Of one number of proposals a row for each precision, with the backend that is the faster one."""
    rows = []
    other = "against_fastest" if "against_fastest" in row else "against"
    for side, precision in (("stream", "float32"), ("int8", "int8")):
        if side not in row:
            continue
        fastest = f"{side}_fastest" if side in row["fastest"] else side
        cells = [kernels, str(row["proposals"]), precision, row["fastest"].get(side, "onnxruntime")]
        cells.append(f"{row[fastest]['p50']:.0f}")
        for against in ("against", other):
            cells += [f"{row[against]['p50']:.0f}", f"{row[f'{against}_over_{fastest}']['p50']:.2f}"]
        rows.append(cells)
    return rows


def attached_int8() -> str:
    """What INT8 of an attached detector keeps of its detections."""
    result = load("attached_int8.json")
    header = ["video", "the same in both", "of detections, on frames", "mean difference of scores"]
    header += ["convolutions in int8", "calibration", "encoder, MB"]
    rows = []
    for row in result["rows"]:
        if "refused" in row:
            rows.append([row["clip"], "refused", *[""] * 5])
            continue
        float32, int8 = row["megabytes"]
        rows.append([
            row["clip"], f"{row['share']:.1%}", f"{row['detections']} on {row['frames']}",
            f"{row['score_difference']:.3f}", "{} of {}".format(*row["convolutions"]),
            f"{row['calibration']}, {row['calibration_frames']} frames", f"{int8:.1f} of {float32:.1f}",
        ])  # fmt: skip
    refused = [f"{row['clip']} was refused: {row['refused']}." for row in result["rows"] if "refused" in row]
    return "\n".join([table(header, rows, "lrrrrlr"), "", " ".join([*refused, store.provenance(result, on=result)])])


def _stages(milliseconds: dict[str, float]) -> str:
    """The detector's own graph is `backbone`; what takes next to nothing is left out."""
    return ", ".join(f"{stage.replace('_', ' ')} {ms:.1f}" for stage, ms in milliseconds.items() if ms >= 0.05)


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
    header = ["what", "stage", "of all values", "stored", "allowed", "ours", "allowed", "apart", "unit"]
    names = ("stored", "stored_tolerance", "ours", "tolerance", "apart")
    rows = [
        [r["what"], r["stage"], r["measure"], *(f"{r[name]:.2g}" for name in names), r["unit"]] for r in result["rows"]
    ]
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "onnxruntime", "numpy"))
    source = f"Commit {store.commit(result)}, {versions}, kernels {result['machine']['kernels']}."
    return "\n".join([table(header, rows, "lllrrrrrl"), "", source])


def parity_yolov() -> str:
    """The public YOLOV implementation's results against ours, of each stage the largest difference."""
    result = load("parity_yolov.json")
    header = ["what", "stage", "apart", "allowed", "unit", "compared", "near-ties"]
    rows = [
        [r["what"], r["stage"], f"{r['apart']:.2g}", f"{r['tolerance']:.2g}", r["unit"], f"{r['compared']:,}",
         "; ".join(r["near_ties"])]
        for r in result["rows"]
    ]  # fmt: skip
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "onnxruntime", "numpy"))
    source = f"Commit {store.commit(result)}, {versions}, kernels {result['machine']['kernels']}."
    return "\n".join([table(header, rows, "llrrlrl"), "", source])


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"accuracy-gains": accuracy_tables.gains} | performance.README | gpu_tables.README,
    "docs/accuracy.md": accuracy_tables.BLOCKS,
    "models/rdn_tiny/README.md": {"rdn-tiny": rdn_tiny, "from-nothing": from_nothing},
    "models/rdn_mini/README.md": {"rdn-mini": rdn_mini},
    "docs/own_detector.md": {
        "frozen-detector": frozen_detector,
        "own-detector-cost": own_detector_cost,
        "own-detector-frames": own_detector_frames,
        "attached-int8": attached_int8,
    },
    "docs/parity.md": {"parity": parity},
    "docs/yolov.md": {"parity-yolov": parity_yolov},
    "docs/linking.md": linking_tables.BLOCKS,
    "docs/evaluation.md": evaluation_tables.BLOCKS,
    "docs/real_videos.md": real_tables.BLOCKS,
    "docs/train_your_own.md": {"self-labels": real_tables.self_labels},
    "docs/performance.md": performance.BLOCKS,
    "docs/tuning.md": performance.TUNING,
    "docs/gpu.md": gpu_tables.BLOCKS,
    "docs/production.md": serve_tables.BLOCKS,
    "docs/triton.md": triton_tables.BLOCKS,
    "docs/capacity.md": triton_tables.BLOCKS,
    "docs/scale.md": scale_tables.BLOCKS,
}


def pages(check: bool) -> int:
    """Rewrite every page that is out of date and draw its pictures.

    Args:
        check: change nothing.

    Returns:
        Exit code: 1 where `check` found a page out of date.
    """
    if not check:
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
        if not check:
            path.write_text(after)
    if stale:
        print(("out of date: " if check else "rewritten: ") + ", ".join(stale))
    return int(check and bool(stale))


def own(path: Path) -> int:
    """Write the page and the pictures of one run of latency.py beside its JSON; returns the exit code."""
    page, *pictures = latency_report.write(path)
    print(page.read_text())
    print("written:", *(os.path.relpath(written) for written in (page, *pictures)))
    if not pictures:
        print("no pictures: matplotlib is missing, or no dial was measured")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "file", nargs="?", type=given_path, help="what latency.py wrote; without it, the committed results"
    )
    what.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is out of date")
    arguments = parser.parse_args(argv)
    return pages(arguments.check) if arguments.file is None else own(arguments.file)


if __name__ == "__main__":
    sys.exit(main())
