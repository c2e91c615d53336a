"""Two checkouts of this repository on one model, frame by frame in turns: did a change make anything slower?

    python benchmarks/frame/compare.py runs/4dcd7c7 --engines models/rdn_tiny/engines

The other checkout must be built (`python setup.py build_ext --inplace`), and detect what this one does. Where it does
not read the same bundle, `--before-engines` is one that it built from the same weights.
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

import numpy as np

from benchmarks.frames import make_frame
from benchmarks.measure import environment_of, summary

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 5
TOLERANCE = 1e-3  # of confidences, in order


class Checkout:
    """A process that runs the package of one checkout."""

    def __init__(self, root: Path, engines: Path, core: int) -> None:
        where = os.environ | environment_of(1) | {"PYTHONPATH": str(root.resolve())}
        command = [sys.executable, "-c", SERVE, str(engines.resolve()), str(core), str(ROOT)]
        self._process = subprocess.Popen(
            command, cwd=root, env=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.package = self._answer()["package"]

    def push(self, t: int) -> dict[str, Any]:
        """-> ms, and confidences of the result that became ready, None where there is none."""
        assert self._process.stdin is not None
        print(t, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the checkout's process ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate()


def serve(engines: str, core: int) -> None:
    """Pushes frame t of the model's size for every t read; runs with the package of the checkout."""
    import rdn_engine

    os.sched_setaffinity(0, {core})
    detector = rdn_engine.Detector.from_pretrained(engines, threads=1)
    size = detector.config.input.shorter_side, detector.config.input.longer_side
    stream = detector.open_stream()
    print(json.dumps({"package": rdn_engine.__file__}), flush=True)
    for line in sys.stdin:
        frame = make_frame(int(line), size)
        begin = time.perf_counter()
        ready = stream.push(frame)
        ms = 1e3 * (time.perf_counter() - begin)
        found = [[float(c) for c in r.confidence] for r in ready]
        print(json.dumps({"ms": ms, "confidence": found[0] if found else None}), flush=True)


# The package comes from PYTHONPATH, this module from here.
SERVE = """
import rdn_engine, sys
sys.path.append(sys.argv[3])
from benchmarks.frame.compare import serve
serve(sys.argv[1], int(sys.argv[2]))
"""


def compare(before: Checkout, now: Checkout, frames: int) -> dict[str, Any]:
    """Exits where the two do not detect the same."""
    sides, filled = {"before": before, "now": now}, 0
    times: dict[str, list[float]] = {name: [] for name in sides}
    t = 0
    while filled < WARM_UP + frames:
        order = sides.items() if t % 2 else reversed(sides.items())
        answers = {name: side.push(t) for name, side in order}
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
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--engines", type=Path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--before-engines", type=Path, help="of the other checkout; default: the same")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    before = Checkout(arguments.before, arguments.before_engines or arguments.engines, arguments.core)
    now = Checkout(ROOT, arguments.engines, arguments.core)
    sides = [before, now]
    if len({side.package for side in sides}) != 2:
        raise SystemExit(f"both processes run {sides[0].package}; wanted a checkout with rdn_engine of its own")
    result = compare(before, now, arguments.frames)
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
