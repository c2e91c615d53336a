"""Archives on Ray Data and streams on Ray Serve: equal results, processes that die, overload, and what Ray costs.

    python benchmarks/serve/scale_ray.py --output benchmarks/results/scale_ray.json

Real clusters of Ray on this machine. Each check is a row: what was wanted, what came, whether it held.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import environment_of
from benchmarks.serve.checks import Found
from benchmarks.serve.ray_archives import WORKERS, archive_faults, long_video, throughput, write_videos
from benchmarks.serve.ray_streams import serve_faults
from rdn_engine.serve.ray.cluster import LOCAL, cluster
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("archives", "streams")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--long-frames", type=int, default=600)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--stream-frames", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few videos, few frames")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS,
                        help="what to do now; of the rest the file keeps what it has")  # fmt: skip
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))
    from training.provenance import environment

    logging.getLogger("ray").setLevel(logging.ERROR)
    if arguments.quick:
        arguments.videos, arguments.long_frames, arguments.rounds = 12, 120, 2
        arguments.streams, arguments.stream_frames = 8, 30
    engines, parts = arguments.engines.resolve(), {}
    if arguments.output and arguments.output.exists():
        parts = json.loads(arguments.output.read_text(encoding="utf-8"))["parts"]
    for part in arguments.parts:
        found = Found()
        if part == "archives":
            with TemporaryDirectory() as folder, cluster(LOCAL, cpus=WORKERS) as ray:
                place = Path(folder)
                videos = write_videos(place / "videos", arguments.videos, arguments.videos // 2)
                archive_faults(found, ray, engines, place, videos)
                long_video(found, ray, engines, place, arguments.long_frames)
                throughput(found, ray, engines, place, videos, arguments.rounds)
        else:
            with cluster(LOCAL, cpus=WORKERS):
                serve_faults(found, engines, arguments.streams, arguments.stream_frames, arguments.rounds)
        parts[part] = {**asdict(found), **environment()}
        if arguments.output:
            write(arguments.output, parts, environment())
    return 0 if all(row["held"] for part in parts.values() for row in part["rows"]) else 1


def write(output: Path, parts: dict[str, Any], environment: dict[str, Any]) -> None:
    """All parts as one document; each says where and when it was measured."""
    rows = [row for part in parts.values() for row in part["rows"]]
    figures = {name: value for part in parts.values() for name, value in part["figures"].items()}
    result = {"rows": rows, **figures, "parts": parts, **environment}
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
