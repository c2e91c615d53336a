"""CPUs that a process may keep busy, from control groups of both versions."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdn_engine import Detector, cpus
from rdn_engine.cpus import Others, available_cpus

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


def stat(*busy: int) -> dict[str, str]:
    """/proc/stat of CPUs that were busy for so many ticks, of each kind of work as many, and as many times 7 idle,
    waiting, or busy for guests, which user and nice have already.
    """
    lines = ["cpu  9 9 9 9 9 9 9 9 9 9"]
    lines += [f"cpu{i} {n} {n} {n} {7 * n} {7 * n} {n} {n} {n} {7 * n} {7 * n}" for i, n in enumerate(busy)]
    return {"proc/stat": "\n".join([*lines, "intr 1 2", "ctxt 5", "cpufreq 1"])}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of this process: user, system, and of its children."""
    times = [0.0] * 4
    monkeypatch.setattr(os, "times", lambda: (*times, 12345.0))
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    return times


def test_others_are_counted_on_the_cpus_that_are_ours(
    tmp_path: Path, own: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2})
    now = [50.0]
    others = Others(write(tmp_path, stat(1000, 1000, 1000)), lambda: now[0])
    assert others.of == 2
    assert others.busy() == 0, "no time has passed"
    now[0] += 10
    write(tmp_path, stat(1100, 5000, 1150))  # 6 + 9 s of six kinds of work
    own[:] = [5.0, 1.0, 2.0, 0.5]
    assert others.busy() == pytest.approx((15 - 8.5) / 10)
    own[0] = 30.0
    assert others.busy() == 0, "ticks are coarse"


@pytest.mark.parametrize(
    "text", ["", "cpu 1 2 3 4 5 6 7 8 9 10", "cpu0 0 0 0 0 0 0 0 0 0 0", "cpu0 1 2 3 4", "cpu0 1 2 3 4 5 6 7 viel"]
)
def test_a_system_that_does_not_tell_has_no_others(text: str, tmp_path: Path, own: list[float]) -> None:
    now = [0.0]
    others = Others(write(tmp_path, {"proc/stat": text}), lambda: now[0])
    now[0] += 1
    assert own == [0.0] * 4
    assert others.busy() == 0
    write(tmp_path, stat(100))
    assert others.busy() == 0, "nobody knows since when"
    assert Others(tmp_path / "nowhere", lambda: now[0]).busy() == 0


@pytest.mark.skipif("\ncpu" not in cpus._read(Path("/proc/stat")), reason="the system tells nothing of its CPUs")
def test_another_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now = [0.0]
    others = Others(clock=lambda: now[0])
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            ticks = 0
            while ticks < 50 and busy.poll() is None:
                ticks = sum(map(int, Path(f"/proc/{busy.pid}/stat").read_text().split()[13:15]))  # user, system
                time.sleep(0.02)
            now[0] = 1.0
            assert others.busy() * os.sysconf("SC_CLK_TCK") > 40
        finally:
            busy.kill()
