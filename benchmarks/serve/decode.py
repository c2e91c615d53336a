"""How long a frame of a 1080p video takes to decode, on one core: what every frame of an archive costs.

python benchmarks/serve/decode.py --output benchmarks/results/decode.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frames import make_frame
from benchmarks.measure import environment_of, summary
from rdn_engine.media.source import open_source
from rdn_engine.media.writer import VideoWriter
from training.arguments import given_path

SIZE = 1080, 1920
FPS = 25


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))
    with TemporaryDirectory() as folder:
        path = Path(folder, "video.mp4")
        with VideoWriter(path, FPS) as writer:
            for t in range(arguments.frames):
                writer.write(make_frame(t, SIZE), t / FPS)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        rounds = []
        for _ in range(arguments.rounds):
            began = time.perf_counter()
            with open_source(str(path)) as video:
                count = sum(1 for _ in video)
            rounds.append(1e3 * (time.perf_counter() - began) / count)
            if count != arguments.frames:
                raise SystemExit(f"{count} of {arguments.frames} frames were decoded")
        found = {"size": SIZE, "frames": arguments.frames, "mbit_a_second": path.stat().st_size * 8 / count * FPS / 1e6,
                 "ms": summary(rounds)}  # fmt: skip
    print(json.dumps(found), flush=True)
    if arguments.output:
        from training.provenance import environment

        arguments.output.write_text(json.dumps({**found, **environment()}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
