"""The figures of `score` as a table to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

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


def _rows(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
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
    delay = result["delay"]
    if "absent" in delay:
        yield "delay", "all", "AD", "", delay["absent"]
        return
    for name, suffix in (("all", ""), ("entering", "_entering")):
        value = f"{_number(delay[f'frames{suffix}'], 2)} frames"
        yield "delay", f"{name} instances", "AD", str(delay[f"instances{suffix}"]), value
    yield "look-ahead", "to add to the delay", "AD", "", f"{delay['look_ahead']} frames"


def _number(value: float | None, digits: int = 1) -> str:
    return "none" if value is None else f"{value:.{digits}f}"
