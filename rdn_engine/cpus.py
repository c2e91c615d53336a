"""How many CPUs this process may keep busy: those it may run on, and what a container's quota leaves of them. And what
others take of those meanwhile."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of a CPU in /proc/stat: user, nice, system, irq, softirq and steal, which is what the hypervisor gave to
other machines (proc_stat(5)). Guests are counted in the first two."""


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


class Others:
    """What runs beside this process on the CPUs that it may run on, from now on."""

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            root: of the file system that has proc; another one for tests.
            clock: seconds.
        """
        self._root, self._clock, self._cpus = root, clock, os.sched_getaffinity(0)
        self._began, self._before = clock(), self._busy()

    @property
    def of(self) -> int:
        """How many CPUs that are. A quota lets this process use fewer of them at a time."""
        return len(self._cpus)

    def busy(self) -> float:
        """How many of them others have kept busy since, on the mean: other processes, the kernel's interrupts, and
        other machines of a hypervisor; 0 where the system does not tell.
        """
        seconds, busy = self._clock() - self._began, self._busy()
        if seconds <= 0 or busy is None or self._before is None:
            return 0.0
        return max(0.0, (busy - self._before) / seconds)

    def _busy(self) -> float | None:
        """Seconds, of all but this process and the children that it has waited for."""
        ticks = 0
        try:
            for line in _read(self._root / "proc/stat").splitlines():
                name, *columns = line.split()
                if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in self._cpus:
                    ticks += sum(int(columns[i]) for i in _BUSY)
        except (ValueError, IndexError):  # another format, which tells nothing
            return None
        return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4]) if ticks else None


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
