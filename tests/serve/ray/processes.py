"""The processes of a cluster that this process has started."""

from __future__ import annotations

from pathlib import Path


def ray_processes(ancestor: int, kind: str) -> list[int]:
    """Workers that do something of a kind.

    Args:
        ancestor: a process, whose descendants are looked at.
        kind: as Ray calls the process: `ray::KIND...`.
    """
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_text().startswith(f"ray::{kind}"):
                found.append(int(folder.name))
        except (OSError, ValueError):  # it has ended
            continue
    return [process for process in found if _descends(process, ancestor, parents)]


def _descends(process: int, ancestor: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == ancestor:
            return True
    return False
