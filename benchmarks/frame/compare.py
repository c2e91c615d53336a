"""Two checkouts of this repository on one model, frame by frame in turns: did a change make anything slower?

    python benchmarks/frame/compare.py runs/4dcd7c7 --engines models/rdn_tiny/engines

The other checkout must be built (`python setup.py build_ext --inplace`), and detect what this one does. Where it does
not read the same bundle, `--before-engines` is one that it built from the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.frame.checkout import ROOT, Checkout, pair
from benchmarks.frames import make_frame
from benchmarks.measure import summary
from training.arguments import given_path

WARM_UP = 5
TOLERANCE = 1e-3  # of confidences, in order


def serve(engines: str) -> None:
    """Pushes frame t of the model's size for every t read; runs with the package of the checkout."""
    import rdn_engine

    detector = rdn_engine.Detector.from_pretrained(engines, threads=1)
    size = detector.config.input.shorter_side, detector.config.input.longer_side
    stream = detector.open_stream()
    for line in sys.stdin:
        frame = make_frame(int(line), size)
        begin = time.perf_counter()
        ready = stream.push(frame)
        ms = 1e3 * (time.perf_counter() - begin)
        found = [[float(c) for c in r.confidence] for r in ready]
        print(json.dumps({"ms": ms, "confidence": found[0] if found else None}), flush=True)


def compare(before: Checkout, now: Checkout, frames: int) -> dict[str, Any]:
    """Exits where the two do not detect the same."""
    sides, filled = {"before": before, "now": now}, 0
    times: dict[str, list[float]] = {name: [] for name in sides}
    t = 0
    while filled < WARM_UP + frames:
        order = sides.items() if t % 2 else reversed(sides.items())
        answers = {name: side.ask(t) for name, side in order}
        found = [answers[name]["confidence"] for name in sides]
        if None not in found:
            filled += 1
            ours, theirs = found
            same = len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=0, atol=TOLERANCE)
            if not same:
                raise SystemExit(f"frame {t}: the two checkouts do not detect the same; nothing is compared")
        if filled > WARM_UP:
            for name, answer in answers.items():
                times[name].append(round(answer["ms"], 4))
        t += 1
    ratios = [a / b for a, b in zip(times["now"], times["before"], strict=True)]
    return {"frames": frames, **{name: {"ms": summary(ms), "rounds": ms} for name, ms in times.items()},
            "now_over_before": summary(ratios)}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=given_path, help="the other checkout")
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--before-engines", type=given_path, help="of the other checkout; default: the same")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    engines = [str(path.resolve()) for path in (arguments.before_engines or arguments.engines, arguments.engines)]
    sides = pair(arguments.before, "benchmarks.frame.compare", *((path,) for path in engines), core=arguments.core)
    result = compare(*sides, arguments.frames)
    for side in sides:
        side.close()
    ratio = result["now_over_before"]
    print(f"before {result['before']['ms']['p50']:.2f} ms, now {result['now']['ms']['p50']:.2f} ms, "
          f"now / before {ratio['p50']:.3f}")  # fmt: skip
    if arguments.output:
        from training.provenance import environment

        arguments.output.write_text(
            json.dumps({"before_is": arguments.before.name} | result | environment(), indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
