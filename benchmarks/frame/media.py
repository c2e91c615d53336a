"""Two checkouts of this repository decoding and writing the same videos in turns: did a change make anything slower?

    python benchmarks/frame/media.py runs/4d13ab7 clip.mp4 other.mp4

Every video is read whole, then its first frames are written as an annotated video would be. Nothing is timed before
both sides have given the same pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frame.checkout import Checkout, pair
from benchmarks.measure import summary
from training.arguments import given_path

if TYPE_CHECKING:
    from rdn_engine.frame import Frame

WRITTEN = 60
"""Frames that are written, at most."""


def serve() -> None:
    """Reads a video for every path on stdin and writes its first frames; runs with the package of the checkout."""
    import zlib

    from rdn_engine.media.source import open_source
    from rdn_engine.media.writer import VideoWriter

    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            frames: list[Frame] = []
            count = checksum = 0
            begin = time.perf_counter()
            with open_source(line.strip()) as video:
                for frame in video:
                    count += 1
                    if len(frames) < WRITTEN:
                        frames.append(frame)
            decode = time.perf_counter() - begin
            for frame in frames:
                checksum = zlib.crc32(frame.image.data, checksum)
            begin = time.perf_counter()
            with VideoWriter(Path(folder) / "out.mp4", video.fps) as writer:
                for frame in frames:
                    writer.write(frame.image, frame.pts)
            write = time.perf_counter() - begin
            answer = {"decode": 1e3 * decode / count, "write": 1e3 * write / len(frames), "checksum": checksum}
            print(json.dumps(answer | {"frames": count}), flush=True)


def compare(sides: tuple[Checkout, Checkout], video: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds a frame on both sides, and their ratio round by round; exits where they do not read the same."""
    times: dict[str, dict[str, list[float]]] = {what: {"before": [], "now": []} for what in ("decode", "write")}
    for number in range(rounds + 1):  # the first one warms up
        order = list(zip(("before", "now"), sides, strict=True))
        answers = {name: side.ask(video) for name, side in (order if number % 2 else reversed(order))}
        if len({(a["frames"], a["checksum"]) for a in answers.values()}) != 1:
            raise SystemExit(f"{video}: the two checkouts do not read the same pictures; nothing is compared")
        for what, of in times.items() if number else ():
            for name, values in of.items():
                values.append(round(answers[name][what], 4))
    return {
        what: {name: summary(values) for name, values in of.items()}
        | {"now_over_before": summary([a / b for a, b in zip(of["now"], of["before"], strict=True)])}
        for what, of in times.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=given_path, help="the other checkout, built")
    parser.add_argument("videos", type=given_path, nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    sides = pair(arguments.before, "benchmarks.frame.media", (), (), core=arguments.core)
    results = {}
    for video in arguments.videos:
        results[video.name] = compare(sides, video.resolve(), arguments.rounds)
        for what, found in results[video.name].items():
            before, now, ratio = (found[name]["p50"] for name in ("before", "now", "now_over_before"))
            print(f"{video.name} {what}: before {before:.2f}, now {now:.2f} ms a frame, now / before {ratio:.3f}")
    for side in sides:
        side.close()
    if arguments.output:
        from training.provenance import environment

        whole = {"before_is": arguments.before.name, "videos": results} | environment()
        arguments.output.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
