"""How many CPUs this process may keep busy: those it may run on, and what a container's quota leaves of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may run on, or as many as its control groups pay for, if that is less.

    A quota is a share of time (cgroup-v2.rst, `cpu.max`; sched-bwc.rst, `cpu.cfs_quota_us`): more threads than it
    covers are stopped for the rest of each period. Part of a CPU counts as one.

    Args:
        root: of the file system that has proc and sys; another one for tests.

    Returns:
        1 or more.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group of this process and each group around it pays for, where it says so."""
    try:
        # Names of groups are any bytes but a line's end.
        lines = (root / "proc/self/cgroup").read_bytes().decode(errors="surrogateescape").split("\n")
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not path:
            continue
        if not controllers:
            for folder in _folders(root / "sys/fs/cgroup", path):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _share(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                for folder in _folders(root / "sys/fs/cgroup" / mount, path):
                    yield from _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _folders(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those of the groups around it. In a container the mount itself is the group's."""
    inner = PurePosixPath(path.lstrip("/"))
    yield from (mount / part for part in (inner, *inner.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):  # what cannot be read, or is no number, is no limit
        return ""


def _share(quota: str, period: str) -> Iterator[float]:
    """Nothing where there is no limit (`max`, -1) or no such file."""
    if quota.isdecimal() and period.isdecimal() and max(len(quota), len(period)) < 20 and int(period):
        yield int(quota) / int(period)
