"""A process that runs the package of one checkout, so that two checkouts can be compared in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import environment_of

ROOT = Path(__file__).resolve().parents[2]

# The package comes from PYTHONPATH; once it is imported, everything else comes from this checkout.
_SERVE = """
import importlib, os, sys
import rdn_engine
sys.path.insert(0, sys.argv[1])
os.sched_setaffinity(0, {int(sys.argv[2])})
print(rdn_engine.__file__, flush=True)
importlib.import_module(sys.argv[3]).serve(*sys.argv[4:])
"""


class Checkout:
    """A process on one core with the package of a checkout. It answers a line with a JSON object."""

    def __init__(self, root: Path, module: str, *arguments: str, core: int) -> None:
        """Start it.

        Args:
            root: of the checkout, built.
            module: of a benchmark here; its `serve(*arguments)` reads lines from stdin and prints an answer for each.
            core: that it runs on.
        """
        where = os.environ | environment_of(1) | {"PYTHONPATH": str(root.resolve())}
        command = [sys.executable, "-c", _SERVE, str(ROOT), str(core), module, *arguments]
        self._process = subprocess.Popen(
            command, cwd=root, env=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.package = self._line()

    def ask(self, question: object) -> dict[str, Any]:
        """Send a line and wait for its answer."""
        assert self._process.stdin is not None
        print(question, file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the checkout's process ended with exit code {self._process.wait()}")
        return line.strip()

    def close(self) -> None:
        self._process.communicate()


def pair(before: Path, module: str, *arguments: tuple[str, ...], core: int) -> tuple[Checkout, Checkout]:
    """Another checkout and this one.

    Args:
        before: the other checkout.
        module: as Checkout has it.
        arguments: of the other, then of this one.
        core: that both run on, in turns.
    """
    first, second = arguments
    sides = Checkout(before, module, *first, core=core), Checkout(ROOT, module, *second, core=core)
    if sides[0].package == sides[1].package:
        raise SystemExit(f"both processes run {sides[0].package}; wanted a checkout with rdn_engine of its own")
    return sides
