"""A system that refuses threads: an error that says so, and kernels that go on with those they have."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.backends import load_backend
from rdn_engine.backends.threads import check_threads
from rdn_engine.errors import BackendUnavailable

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"

LIMITED = """
import os, resource, sys
import numpy as np
from rdn_engine import Detector, RDNError

os.chdir(sys.argv[1])
frames = [np.random.default_rng(t).integers(0, 255, (120, 160, 3), np.uint8) for t in range(2)]
wanted = Detector.from_pretrained(".", threads=1, backend=sys.argv[2]).predict(frames)  # imports all
opened = Detector.from_pretrained(".", threads=4)
if os.getuid() == 0:  # whom the limit does not hold
    os.setgid(64123)
    os.setuid(64123)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    Detector.from_pretrained(".", threads=4, backend=sys.argv[2])
except RDNError as error:
    print(type(error).__name__, error)
before = len(os.listdir("/proc/self/task"))
found = opened.predict(frames)
assert len(os.listdir("/proc/self/task")) == before
# ONNX Runtime may sum in another order with more threads.
print(all(np.allclose(a.xyxy, b.xyxy, atol=0.1) for a, b in zip(found, wanted, strict=True) if len(a) == len(b)))
print([len(a) == len(b) > 0 for a, b in zip(found, wanted, strict=True)])
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_system_that_refuses_threads_is_said(backend: str, tmp_path: Path) -> None:
    """In a process of its own, which takes the limit on its user's threads; kernels of an open detector go on."""
    shutil.copytree(ENGINES, tmp_path / "engines")
    (tmp_path / "engines").chmod(0o755)  # for another user, where this one is root
    for path in (tmp_path / "engines").iterdir():
        path.chmod(0o644)
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "engines"), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said, *rest = done.stdout.splitlines()
    assert said.startswith("BackendUnavailable the system refuses 4 threads (can't start new thread after 1); wanted")
    assert rest == ["True", "[True, True]"]
    assert done.stderr == ""


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many more threads the system gives."""
    left, start = [0], threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return left


@pytest.mark.parametrize(("threads", "given"), [(1, 0), (4, 3), (4, 0), (4, 2)])
def test_a_part_of_the_threads_is_refused_too(threads: int, given: int, room: list[int]) -> None:
    room[0] = given
    before = threading.active_count()
    if given < threads - 1:
        with pytest.raises(BackendUnavailable, match=rf"refuses {threads} threads \(.* after {given + 1}\); wanted a"):
            check_threads(threads)
    else:
        check_threads(threads)
    assert room[0] == 0
    assert threading.active_count() == before, "they are given back"


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_it_is_asked_before_the_library_asks(name: Any, room: list[int]) -> None:
    room[0] = 2
    with pytest.raises(BackendUnavailable, match="the system refuses 4 threads"):
        load_backend(name, "cpu", 4).load(ENGINES / "roi_head.onnx")
