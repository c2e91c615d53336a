"""Many flapping streams for a long time: what the process holds must not grow.

    python benchmarks/serve/soak.py --seconds 1800 --streams 16 --output benchmarks/results/soak.json

Servers are killed and started again at random. At intervals all are let come back, and with every stream connected the
process is measured: resident memory, threads, descriptors. After the warm-up (`benchmarks/serve/settled.py`) memory
may move by 1% of its median, and threads and descriptors not at all; otherwise this ends with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import environment_of
from benchmarks.serve.faults import any_result, flap
from benchmarks.serve.observed import PATIENCE, Fate, Observed, total
from benchmarks.serve.settled import Sample, judge
from rdn_engine.detector import Detector
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.live import LiveOptions
from rdn_engine.serve.scheduler import Scheduler
from tests.cameras.processes import http_camera
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]


def sample(begin: float) -> Sample:
    """What this process holds now.

    Args:
        begin: `time.monotonic` at the start.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident = int(status["VmRSS"].split()[0]) / 1024
    descriptors = len(os.listdir("/proc/self/fd")) - 1  # without that of the listing
    return Sample(time.monotonic() - begin, resident, int(status["Threads"]), descriptors)


def run(detector: Detector, seconds: float, streams: int, interval: float) -> tuple[list[Sample], Fate]:
    """Flap, and measure at intervals.

    Args:
        detector: with a small model.
        seconds: in all.
        streams: each on a server of its own.
        interval: seconds between two measurements.
    """
    chance, samples = random.Random(0), []
    # One frame may wait: what more of them hold comes and goes with what else the machine does, and is no growth.
    options = LiveOptions(room=1, first_delay=0.1, longest_delay=0.5, source=SourceOptions(timeout=5.0))
    dials = replace(detector.config.dials, look_ahead=1)
    with ExitStack() as stack:
        cameras = [stack.enter_context(http_camera(rate=1)) for _ in range(streams)]
        scheduler = Scheduler(detector)
        stack.callback(scheduler.close, drain=False, deadline_s=PATIENCE)
        seen = [
            Observed(scheduler, str(i), camera.address("cam.mjpg"), options, dials) for i, camera in enumerate(cameras)
        ]
        for one in seen:
            one.wait(any_result)
        begin = time.monotonic()
        while time.monotonic() < begin + seconds:
            flap(seen, cameras, interval, chance)
            for one in seen:
                one.wait_results(2)
            samples.append(sample(begin))
            print(samples[-1], flush=True)
        return samples, total(f"{streams} streams", [one.end("", None) for one in seen], None)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--interval", type=float, default=20.0, help="seconds between two measurements")
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))
    detector = Detector.from_pretrained(arguments.engines, threads=1)
    samples, fate = run(detector, arguments.seconds, arguments.streams, arguments.interval)
    found = judge(samples) + ([] if fate.exact else ["the account is not exact"])
    print("\n".join(found) or "memory, threads and descriptors stay as they are")
    if arguments.output:
        from training.provenance import environment

        result = {
            "engines": arguments.engines.name,
            "streams": arguments.streams,
            "seconds": arguments.seconds,
            "samples": [asdict(one) for one in samples],
            "account": asdict(replace(fate, said="")),
            **environment(),
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
