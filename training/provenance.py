"""Where a result was measured: what a reader needs to measure it again."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rdn_engine.kernels import _C
from rdn_engine.text import read_text

HIDDEN = "RDN_HIDDEN"
PACKAGES = (
    "rdn-engine",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "numpy",
    "av",
    "faster-coco-eval",
    "pycocotools",
    "ray",
)


def environment() -> dict[str, Any]:
    """Command, date, commit (with `+` where the tree had changes), versions and machine, as plain JSON values."""
    # scripts/without_avx512.py says what it keeps from the libraries.
    hidden = {"hidden": os.environ[HIDDEN]} if HIDDEN in os.environ else {}
    machine = {
        "system": platform.platform(),
        "cpu": processor(read_text(Path("/proc/cpuinfo"))),
        "cores": os.cpu_count(),
        "kernels": _C.isa,
    }
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": machine | hidden,
    }


def gpu() -> str | None:
    """Name and driver of the first GPU, as nvidia-smi says; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else None


def _versions() -> dict[str, str]:
    """Of those that are installed: a machine that only measures the device need not have all."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    # Results are what a run writes, so they do not make the code that wrote them another one.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results")
    commit = git("rev-parse", "HEAD")
    return f"{commit}{'+' if changed else ''}" if commit else None


def processor(cpuinfo: str) -> str:
    """The first processor that `/proc/cpuinfo` lists.

    Args:
        cpuinfo: text of that file.

    Returns:
        Its name and, where it has them, family and model, because virtual machines call many processors by one name;
        the architecture's where it has no name.
    """
    lines = [line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines()]
    told = {key.strip(): value.strip() for key, _, value in lines}
    name = told.get("model name") or platform.machine()
    both = "cpu family" in told and "model" in told
    return f"{name} (family {told['cpu family']}, model {told['model']})" if both else name
