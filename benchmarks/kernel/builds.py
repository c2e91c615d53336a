"""The relation stage of two checkouts of this repository, frame by frame in turns, on one core and one thread.

    python benchmarks/kernel/builds.py runs/0bfefd0 --output benchmarks/results/relation_builds_avx2.json

The stage is that of benchmarks/kernel/relation.py, at the same sizes. Three sides: the other checkout, which must be
built (`python setup.py build_ext --inplace`); this one; and this one with the ring in float16. Nothing is reported that
does not match float64. RDN_ISA names the instruction set of all of them. docs/performance.md has a table for each file
relation_builds_avx2*.json, so another machine's has a name of its own. Times are of the CPU, so that what other
processes take of the core is not counted; what they do to its caches is, to all sides alike.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kernel.relation import FULL, QUICK, Case, Ours, float64_outputs, make_frame, make_weights
from training.arguments import given_path

# isort: split
import numpy as np

from benchmarks.frame.checkout import ROOT, Checkout
from benchmarks.kernel.relation import relative_errors
from benchmarks.kernel.turns import WARM_UP
from benchmarks.measure import summary

MODULE = "benchmarks.kernel.builds"
CASES = {"full": FULL, "quick": QUICK}


def serve(case_name: str, ring: str) -> None:
    """Runs frame t for every `t [file]` read, and saves its outputs there; with the package of the checkout."""
    case = CASES[case_name]
    kept: dict[str, Any] = {} if ring == "float32" else {"ring": ring}
    side = Ours(case, make_weights(case), **kept)
    for line in sys.stdin:
        number, _, file = line.strip().partition(" ")
        frame = make_frame(case, int(number))
        begin = time.process_time()
        outputs = side.push(frame)
        ms = 1e3 * (time.process_time() - begin)
        if file and outputs:
            np.savez(file, **outputs)  # type: ignore[arg-type]
        print(json.dumps({"ms": ms, "nbytes": side.window.nbytes}), flush=True)


def compare(case: Case, sides: dict[str, Checkout], rounds: int) -> dict[str, Any]:
    """Every side of every round. Exits where a side's first or last outputs are not those of float64."""
    found: dict[str, dict[str, Any]] = {name: {"rounds": [], "relative_error": {}} for name in sides}
    first = case.frames - 1
    last = first + WARM_UP + rounds
    checked = {first: "first", last: "last"}
    with tempfile.TemporaryDirectory() as folder:
        for t in range(last + 1):
            wanted = float64_outputs(case, t) if t in checked else {}
            for name in sides if t % 2 else reversed(list(sides)):
                file = Path(folder) / f"{name}.npz"
                answer = sides[name].ask(f"{t} {file}" if t in checked else t)
                found[name]["nbytes"] = answer["nbytes"]
                if t > first + WARM_UP:
                    found[name]["rounds"].append(round(answer["ms"], 3))
                if t in checked:
                    kind = "ours_float16_ring" if name == "now_float16_ring" else "ours"
                    with np.load(file) as outputs:
                        errors = relative_errors(kind, checked[t], dict(outputs), wanted)
                    found[name]["relative_error"][checked[t]] = errors
    for side in found.values():
        side["ms"] = summary(side["rounds"])
        side["before_over_this"] = summary(
            [b / a for a, b in zip(side["rounds"], found["before"]["rounds"], strict=True)]
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=given_path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    case = "quick" if arguments.quick else "full"
    wanted = {"before": (arguments.before, "float32"), "now": (ROOT, "float32"), "now_float16_ring": (ROOT, "float16")}
    sides = {name: Checkout(root, MODULE, case, ring, core=arguments.core) for name, (root, ring) in wanted.items()}
    if sides["before"].package == sides["now"].package:
        raise SystemExit(f"all processes run {sides['now'].package}; wanted a checkout with rdn_engine of its own")
    found = compare(CASES[case], sides, arguments.rounds)
    for side in sides.values():
        side.close()
    for name, side in found.items():
        error = max(e for errors in side["relative_error"].values() for e in errors.values())
        ms, ratio, held = side["ms"], side["before_over_this"]["p50"], side["nbytes"] / 2**20
        print(f"{name}: {ms['p50']:.1f} ms, {ms['min']:.1f} at least; before / this {ratio:.3f}; error {error:.1e}; "
              f"{held:.1f} MiB")  # fmt: skip
    if arguments.output:
        from training.provenance import environment

        about = {"before_is": arguments.before.name, "process": {"threads": 1, "core": arguments.core}}
        arguments.output.write_text(json.dumps(about | {"sides": found} | environment(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
