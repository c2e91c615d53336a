"""CPUs that a process may keep busy, from control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdn_engine import Detector, cpus
from rdn_engine.cpus import available_cpus

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V2 = {"proc/self/cgroup": "0::/"}
V1 = {"proc/self/cgroup": "12:pids:/docker/4f\n4:cpu,cpuacct:/docker/4f\n1:name=systemd:/docker/4f"}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 16),  # no control groups at all
        (V2, 16),
        (V2 | {"sys/fs/cgroup/cpu.max": "max 100000"}, 16),
        (V2 | {"sys/fs/cgroup/cpu.max": "250000 100000"}, 3),  # docker run --cpus 2.5
        (V2 | {"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        (V2 | {"sys/fs/cgroup/cpu.max": "6400000 100000"}, 16),  # more than there are
        ({"proc/self/cgroup": "0::/kubepods/pod7/c1", "sys/fs/cgroup/kubepods/pod7/c1/cpu.max": "max 100000",
          "sys/fs/cgroup/kubepods/pod7/cpu.max": "200000 100000"}, 2),  # the pod's limit, not the container's
        ({"proc/self/cgroup": "\n0::/a\u2028b\x0c\nno colons\n4:cpu", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        (V2 | {"sys/fs/cgroup/cpu.max": "ein Viertel \u00bc"}, 16),
        (V2 | {"sys/fs/cgroup/cpu.max": "9" * 5000 + " 100000"}, 16),
        (V1, 16),
        # The container sees its own group at the mount, by the path that the host calls it.
        (V1 | {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
               "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000"}, 3),
        (V1 | {"sys/fs/cgroup/cpu/docker/4f/cpu.cfs_quota_us": "400000",
               "sys/fs/cgroup/cpu/docker/4f/cpu.cfs_period_us": "100000"}, 4),
        (V1 | {"sys/fs/cgroup/cpu/docker/4f/cpu.cfs_quota_us": "-1",
               "sys/fs/cgroup/cpu/docker/4f/cpu.cfs_period_us": "100000"}, 16),
    ],
)  # fmt: skip
def test_a_quota_bounds_the_cpus(files: dict[str, str], wanted: int, tmp_path: Path) -> None:
    assert available_cpus(write(tmp_path, files)) == wanted


def test_a_group_s_name_is_any_bytes(tmp_path: Path) -> None:
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "200000 100000", "proc/self/cgroup": ""})
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/user.slice/caf\xe9.scope\n")
    assert available_cpus(tmp_path) == 2


def test_a_detector_takes_no_more_threads_than_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = write(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "300000 100000"})
    monkeypatch.setattr("rdn_engine.detector.available_cpus", lambda: cpus.available_cpus(root))
    assert Detector.from_pretrained(ENGINES).threads == 3
    assert Detector.from_pretrained(ENGINES, threads=5).threads == 5
