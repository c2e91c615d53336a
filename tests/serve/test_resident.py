"""What a stream is admitted with is what it takes from the machine, within a factor of two."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STREAMS = 16

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rdn_engine import Detector, Frame
from rdn_engine.serve.scheduler import Scheduler
from tests.serve.doubles import WAIT, FakeSource, Sink

detector = Detector.from_pretrained("models/rdn_tiny/engines", threads=1)
inputs = detector.config.input
rng = np.random.default_rng(0)
pictures = rng.integers(0, 255, (4, inputs.shorter_side, inputs.longer_side, 3), np.uint8)
count = 2 * detector.config.dials.window + 4
frames = [Frame(pictures[t % 4], t, None, "camera") for t in range(count)]


def resident():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


scheduler = Scheduler(detector, workers=2)


def serve(streams):
    made = []
    sinks = [Sink() for _ in range(streams)]

    def open_source(on_frame):
        made.append(FakeSource(on_frame, frames))
        return made[-1]

    served = [scheduler.add(f"{streams}-{i}", open_source, sink) for i, sink in enumerate(sinks)]
    for sink in sinks:
        sink.wait(count - detector.config.dials.window)
        sink.results.clear()
    return served, made


first = serve(2)  # what the graphs work in is there from now on
before = resident()
more = serve(int(sys.argv[1]))
print((resident() - before) / int(sys.argv[1]), scheduler.cost().total)
scheduler.close(drain=False, deadline_s=WAIT)
"""


def test_resident_memory_of_a_stream_is_between_half_and_all_of_its_cost() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(STREAMS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    resident, cost = map(float, done.stdout.split())
    assert cost / 2 <= resident <= cost, (resident / 2**20, cost / 2**20)
