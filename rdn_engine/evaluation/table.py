"""The figures of `score` as a table to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

Row = tuple[str, str, str, str, str]

THREE = {"speed": ("slow", "medium", "fast"), "size": ("small", "medium", "large")}


def result_table(result: dict[str, Any]) -> Table:
    """One row a figure, with the protocol by its short name; the long ones are in the result."""
    data = result["data"]
    table = Table(
        caption=f"{data['name']}: {data['videos']} videos, {data['frames']} frames",
        caption_justify="left",
    )
    table.add_column("figure")
    table.add_column("of")
    table.add_column("protocol")
    table.add_column("objects", justify="right")
    table.add_column("value", justify="right")
    for row in _rows(result):
        table.add_row(*row)
    return table


def _rows(result: dict[str, Any]) -> Iterator[Row]:
    data, objects = result["data"], str(result["data"]["objects"])
    yield "AP50", "all", "VID", objects, _number(result["vid"]["AP50"])
    yield "AP50", "all", "COCO", objects, _number(result["coco"]["AP50"])
    yield "AP", "all", "COCO", objects, _number(result["coco"]["AP"])
    for name, part in result["vid"]["conditions"].items():
        yield "AP50", f"{name} frames", "VID", str(part["objects"]), _number(part["AP50"])
    for block, names in THREE.items():
        if "absent" in result[block]:
            yield "AP50", f"by {block}", "VID", "", result[block]["absent"]
            continue
        for name in names:
            part = result[block][name]
            yield (
                "AP50",
                f"{name} objects" if block == "speed" else f"{name} third",
                "VID",
                str(part["objects"]),
                _number(part["AP50"]),
            )
    for name in THREE["size"]:
        part = result["size_coco"][name]
        yield "AP", f"{name} objects", "COCO", str(part["objects"]), _number(part["AP"])
    for name, ap in result["vid"]["per_class"].items():
        yield "AP50", name, "VID", str(data["classes"][name]), _number(ap)
    yield from _delay(result["delay"])
    yield from _acting(result)
    if "streaming" in result:
        yield from _streaming(result["streaming"], objects)


def _delay(delay: dict[str, Any]) -> Iterator[Row]:
    if "absent" in delay:
        yield "delay", "all", "AD", "", delay["absent"]
        return
    for name, suffix in (("all", ""), ("entering", "_entering")):
        value = f"{_number(delay[f'frames{suffix}'], 2)} frames"
        yield "delay", f"{name} instances", "AD", str(delay[f"instances{suffix}"]), value
    yield "look-ahead", "to add to the delay", "AD", "", f"{delay['look_ahead']} frames"


def _acting(result: dict[str, Any]) -> Iterator[Row]:
    """What depends on where detections are cut"""
    data, operating = result["data"], result["operating"]
    yield "oLRP", "all", "LRP", str(data["objects"]), _number(operating["oLRP"])
    for name, point in operating["per_class"].items():
        if point is not None:
            told = f"{point['threshold']:.3f} (precision {point['precision']:.2f}, recall {point['recall']:.2f})"
            yield "threshold", name, "LRP", str(data["classes"][name]), told
    calibration = result["calibration"]
    for key, of in (("D_ECE", "all"), ("D_ECE_certain", "confident")):
        value = _number(calibration[key], 3)
        yield "calibration error", f"{of} detections", "D-ECE", str(calibration["detections"]), value
    stability = result["stability"]
    if "absent" not in stability:
        for key in ("fragments", "centre", "shape"):
            yield "stability", key, "ZW", str(stability["instances"]), _number(stability[key], 3)
    tracking = result["tracking"]
    if "absent" not in tracking:
        for key in ("HOTA", "IDF1", "MOTA"):
            yield key, "linked", "TrackEval", str(data["objects"]), _number(tracking[key])
        yield "switches", "linked", "TrackEval", str(data["objects"]), str(tracking["switches"])


def _streaming(live: dict[str, Any], objects: str) -> Iterator[Row]:
    yield "streaming AP50", "all", "VID", objects, _number(live["AP50"])
    yield "streaming AP", "all", "COCO", objects, _number(live["AP"])
    late = live["delay_ms"]
    told = f"{late['mean']:.0f} ms (95% below {late['p95']:.0f})" + ("" if live["keeps_up"] else ", and growing")
    yield "delay", "results", "", "", told
    if live["average_delay_ms"] is not None:
        yield "delay", "all instances", "AD", "", f"{live['average_delay_ms']:.0f} ms"


def _number(value: float | None, digits: int = 1) -> str:
    return "none" if value is None else f"{value:.{digits}f}"
