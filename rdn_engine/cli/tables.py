"""What the command line prints for people."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import Manifest
from rdn_engine.config import RDNConfig
from rdn_engine.errors import BackendUnavailable

if TYPE_CHECKING:
    from rich.table import Table

_OF_ALL = ("between", "still", "total")
"""What `_milliseconds` gives of all frames alone: the others are the work of encoded ones"""


def new_table(*columns: str) -> Table:
    """An empty table with these headings."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def tables_text(*tables: Table) -> str:
    """Tables one below the other, as stdout shows them. What is wrong with stdout is left to who writes them."""
    from rich.console import Console

    text, stdout = io.StringIO(), Console()
    console = Console(file=text, width=stdout.width, force_terminal=stdout.is_terminal, markup=False, highlight=False)
    for table in tables:
        console.print(table)
    return text.getvalue()


def summary_table(summary: dict[str, Any]) -> Table:
    """A summary as a table.

    Args:
        summary: of `Run.summary`.
    """
    table = new_table("summary", "")
    table.add_row("source", summary["source"])
    refused = f", {summary['refused']} refused" if summary["refused"] else ""
    table.add_row("frames", f"{summary['frames']}, {summary['skipped']} damaged and skipped{refused}")
    _add_encoded(table, summary)
    if summary["incomplete"]:
        table.add_row("incomplete", summary["incomplete"])
    if summary["error"]:
        table.add_row("error", summary["error"])
    if summary["epochs"] > 1:
        table.add_row(
            "epochs", f"{summary['epochs']}: the size, the clock or the source changed, and the window began anew"
        )
    _add_detections(table, summary)
    if summary["identities"] is not None:
        table.add_row("identities", str(summary["identities"]))
    if summary.get("backend"):
        table.add_row("backend", summary["backend"])
    if summary["steady_frames"]:
        encoded = "" if summary["every_frame"] else f", {summary['steady_encoded']} of them encoded"
        table.add_row("timed", f"mean of {summary['steady_frames']} steady frames{encoded}")
    for stage, ms in summary["steady_ms_per_frame"].items():
        table.add_row(f"{stage}, ms", _milliseconds(stage, ms, summary))
    table.add_row("memory", f"stream {summary['stream_bytes'] / 2**20:.1f} MiB, "
                            f"process at most {summary['peak_memory_bytes'] / 2**20:.0f} MiB")  # fmt: skip
    for what in ("output", "video"):
        if summary[what]:
            table.add_row(what, summary[what])
    return table


def archive_table(summary: dict[str, Any]) -> Table:
    """The summary of many videos as a table.

    Args:
        summary: of `rdn_engine.cli.archive.summary_of`.
    """
    table = new_table("summary", "")
    for name in ("output", "done", "done before", "errors", "frames"):
        table.add_row(name, str(summary[name]))
    _add_encoded(table, summary)
    _add_detections(table, summary)
    if summary["interrupted"]:
        table.add_row("interrupted", "by a signal; the next run goes on")
    return table


def _add_encoded(table: Table, summary: dict[str, Any]) -> None:
    if not summary["every_frame"]:
        rest = "the results of the others come from theirs" if summary["encoded"] < summary["frames"] else "all"
        table.add_row("encoded", f"{summary['encoded']}, {rest}")


def _add_detections(table: Table, summary: dict[str, Any]) -> None:
    for name, count in summary["per_class"].items():
        table.add_row(f"detections: {name}", str(count))
    if not summary["per_class"]:
        table.add_row("detections", "none")


def _milliseconds(stage: str, ms: float, summary: dict[str, Any]) -> str:
    """The mean of a stage over the steady frames; where some were not encoded, what it took of those that were too."""
    frames, encoded = summary["steady_frames"], summary["steady_encoded"]
    if summary["every_frame"]:
        return f"{ms:.2f}"
    of_encoded = "" if stage in _OF_ALL or not encoded else f", {ms * frames / encoded:.2f} an encoded one"
    return f"{ms:.2f} a frame{of_encoded}"


def model_rows(config: RDNConfig) -> dict[str, str]:
    """What the model is made of, in words.

    Args:
        config: of the model.

    Returns:
        Heading -> text.
    """
    roi, relation, given, attached = config.roi, config.relation, config.input, config.attached
    cosine = config.cosine
    sides = f"shorter side {given.shorter_side}, longer at most {given.longer_side}"
    if given.size is not None:
        sides = f"{given.fit}, {given.size[1]} x {given.size[0]}"
    rows = {"input": f"{sides}, {given.channel_order}"}
    if attached is None:
        rows["backbone"] = f"{config.backbone.name}, width {config.backbone.width:g}"
    else:
        rows["attached"] = f"a detector with features of {attached.features}, NMS above {attached.nms_threshold:g}"
    if attached is None or attached.map_stride is not None:
        rows["RoI"] = f"{roi.pooling} {roi.size}x{roi.size}"
    advanced = " + advanced" if relation.advanced else ""
    stages = f"{relation.num_basic} basic{advanced}, {relation.heads} heads of {relation.head_dim}"
    if relation.attention == "cosine_score":
        stages = f"cosine_score, {relation.heads} heads of {relation.head_dim}, memory order {cosine.memory_order}"
    rows["relation"] = "none: the detector's own scores" if config.alone else stages
    return rows


def agreement_rows(manifest: Manifest) -> dict[str, str]:
    """What a reduced precision costs and what calibration gained, in words.

    Args:
        manifest: of the bundle.

    Returns:
        Heading -> text; empty for float32 that nobody calibrated.
    """
    return _precision_rows(manifest) | _confidence_rows(manifest)


def _confidence_rows(manifest: Manifest) -> dict[str, str]:
    if manifest.confidence is None:
        return {}
    test = manifest.confidence.test
    return {
        "confidences": f"calibrated on {test.fitted_frames} frames of {test.data}: calibration error "
        f"{test.error_before:.4f} -> {test.error_after:.4f} on {test.tested_frames} others"
    }


def _precision_rows(manifest: Manifest) -> dict[str, str]:
    a = manifest.agreement
    if a is None:
        return {}
    accepted = "" if a.share >= a.minimum else f", accepted below the {a.minimum:.1%} asked for"
    return {
        "against float32": f"{a.share:.1%} of {a.detections} detections with a score of {a.score:g} or more in both"
        f"{accepted}; scores differ by {a.score_difference:.3f}; {a.frames} frames",
        "calibration": f"{a.calibration}, {a.calibration_frames} frames",
    }


def graph_table(bundle: Bundle) -> Table:
    """The graphs of a bundle with names and shapes of their inputs and outputs.

    Args:
        bundle: whose files were checked.

    Raises:
        BundleError: for a graph that ONNX Runtime cannot load.
    """
    # Here, because what the other commands print needs no ONNX Runtime.
    from rdn_engine.backends.onnxruntime.session import CPU, open_session

    table = new_table("graph", "inputs", "outputs")
    for role in bundle.manifest.graphs:
        try:
            session = open_session(bundle.path(role), 1, CPU)
        except BackendUnavailable:
            table.add_row(role, f"ONNX Runtime has no CPU kernel for {bundle.manifest.precision}", "")
            continue
        sides = [
            "\n".join(f"{a.name} [{', '.join(map(str, a.shape))}]" for a in args)
            for args in (session.get_inputs(), session.get_outputs())
        ]
        table.add_row(role, *sides)
    return table


def dial_table(config: RDNConfig) -> Table:
    """The model's own dials, with their ranges.

    Args:
        config: of the model.
    """
    d = config.dials
    table = new_table("dial", "value", "range")
    table.add_row("window (T)", str(d.window), "0 or more encoded frames")
    table.add_row("look-ahead (L)", str(d.frames_ahead), "0..T steps")
    table.add_row("support (K)", str(d.num_support), "1..N proposals a frame")
    table.add_row("reference (N)", str(d.num_reference), "K or more proposals a frame")
    table.add_row("ratio (r)", f"{d.advanced_ratio:g}", "(0, 1]")
    table.add_row("sampling", d.sampling, "per_frame, global")
    table.add_row("edges", d.edges, "replicate, clip")
    table.add_row("link", d.link, "off, relations, boxes, seq_nms")
    table.add_row("link delay (D)", str(d.link_delay), "0 or more steps")
    table.add_row("link gap (G)", str(d.link_gap), "0 or more steps")
    table.add_row("interval (n)", str(d.interval), "1..4096: every n-th frame is a step")
    table.add_row("still", f"{d.still:g}", "0 (off)..255 grey levels")
    table.add_row("still run (m)", str(d.still_run), "1 or more steps")
    table.add_row("threshold", f"{d.score_threshold:g}", "[0, 1)")
    return table
