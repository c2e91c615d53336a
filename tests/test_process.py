"""A forked child has no threads: it is told, and neither waits nor dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.media.clips import encode

ENGINES = Path(__file__).parents[1] / "models" / "rdn_tiny" / "engines"

FORKED = """
import os, sys, warnings
from rdn_engine import Detector, LiveOptions, LiveSource, RDNError, Scheduler

warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tried here
engines, clip = sys.argv[1:]
scheduler = Scheduler(Detector.from_pretrained(engines, threads=1), workers=1)
results = []
served = scheduler.add("a", lambda wake: LiveSource(clip, LiveOptions(policy="wait"), on_change=wake), results.append)
live = LiveSource(clip)
live.start()
live.get()
child = os.fork()
if child == 0:
    for call in (live.get, served.wait, served.snapshot, scheduler.snapshot, lambda: served.remove(drain=True),
                 lambda: scheduler.add("b", lambda wake: LiveSource(clip, on_change=wake), results.append)):
        try:
            call()
        except RDNError as error:
            print("refused:", "forked from it" in str(error), flush=True)
    print(live.close(), scheduler.close(drain=True, deadline_s=60.0), flush=True)
    own = LiveSource(clip, LiveOptions(policy="wait", real_time=False))
    own.start()
    print(own.get() is not None, own.close(60.0), flush=True)
    sys.exit(0)
print("child:", os.waitpid(child, 0)[1], flush=True)
print(scheduler.close(drain=False, deadline_s=60.0), live.close(60.0))
"""


def test_a_forked_child_is_refused_what_needs_threads_and_ends(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames=200)
    command = [sys.executable, "-c", FORKED, str(ENGINES), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = ["refused: True"] * 6 + ["True True", "True True", "child: 0", "True True"]
    assert (done.returncode, done.stdout.splitlines()) == (0, lines), done.stderr
