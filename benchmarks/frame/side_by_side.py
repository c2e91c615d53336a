"""A steady frame of several models, each at its own dials, frame by frame in turns on one core.

    python benchmarks/frame/side_by_side.py models/rdn_tiny/engines engines/own_rdn --output my.json

Ratios are to the first one, round by round. Each directory is verified before it is timed. Milliseconds are CPU time of
the one thread that works, so that what else the machine does counts little; stages are wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import environment_of, summary
from rdn_engine import Detector
from rdn_engine.verify import verify
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
SIZE = (192, 128)
"""(width, height) of the rendered frames, pixels"""


def measure(engines: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """One row a model."""
    from training.data.synthetic import SyntheticVideos

    detectors = {path: Detector.from_pretrained(path, threads=1) for path in engines}
    warm = max(d.config.dials.window + d.config.dials.frames_ahead for d in detectors.values()) + 5
    frames = SyntheticVideos("demo", 1, warm + rounds, SIZE)[0].frames
    streams = {path: d.open_stream() for path, d in detectors.items()}
    for frame in frames[:warm]:
        for stream in streams.values():
            stream.push(frame)
    before = {path: dict(stream.timings.seconds) for path, stream in streams.items()}
    taken: dict[str, list[float]] = {path: [] for path in engines}
    found = dict.fromkeys(engines, 0)
    for number, frame in enumerate(frames[warm:]):
        for path in engines if number % 2 else reversed(engines):
            begin = time.process_time()
            ready = streams[path].push(frame)
            taken[path].append(1e3 * (time.process_time() - begin))
            found[path] += sum(int((r.confidence > 0.5).sum()) for r in ready)
    base = taken[engines[0]]
    rows = []
    for path in engines:
        seconds = streams[path].timings.seconds
        dials = detectors[path].config.dials
        rows.append(
            {
                "engines": path,
                "dials": {n: getattr(dials, n) for n in ("window", "num_support", "num_reference", "advanced_ratio")},
                "ms": summary(taken[path]),
                "over_first": summary([a / b for a, b in zip(taken[path], base, strict=True)]),
                "stages_ms": {s: round(1e3 * (x - before[path][s]) / rounds, 3) for s, x in seconds.items()},
                "detections": found[path],
                "rounds": [round(ms, 3) for ms in taken[path]],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("engines", nargs="+", help="engine directories; the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=given_path)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        os.sched_setaffinity(0, {arguments.core})
        print(json.dumps(measure(arguments.engines, arguments.rounds)))
        return
    for path in arguments.engines:
        wrong = [stage.stage for stage in verify(path) if not stage.passed]
        if wrong:
            raise SystemExit(f"{path} does not pass its own check ({', '.join(wrong)}); nothing is timed")
    # A process of its own, whose libraries read the number of threads as they start.
    command = [sys.executable, str(Path(__file__).resolve()), "--timed", *arguments.engines]
    command += ["--rounds", str(arguments.rounds), "--core", str(arguments.core)]
    done = subprocess.run(command, env=os.environ | environment_of(1), stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout)
    for row in rows:
        print(f"{row['engines']}: {row['ms']['p50']:.2f} ms, {row['over_first']['p50']:.3f} of {rows[0]['engines']}")
    if arguments.output:
        from training.provenance import environment

        arguments.output.write_text(json.dumps(environment() | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
