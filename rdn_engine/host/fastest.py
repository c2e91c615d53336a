"""Which backend is the fastest for a bundle on this machine: measured once, and remembered.

Nobody can guess it: on one core OpenVINO may win one model and ONNX Runtime another.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rdn_engine.backends import load_backend
from rdn_engine.backends.graph import BackendName, Graph
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import MANIFEST
from rdn_engine.cache import cache_directory
from rdn_engine.errors import BackendUnavailable
from rdn_engine.text import read_text

CANDIDATES: tuple[tuple[BackendName, str], ...] = (("onnxruntime", "onnxruntime"), ("openvino", "openvino"))
"""Those that run any precision on the CPU, and the packages that they want. The first one is always there"""
ROUNDS = 7
"""Calls of each that are timed, in turns, after one that is not"""
WIDTH_OVER_HEIGHT = 4 / 3
"""Of the picture that is measured with"""

_log = logging.getLogger("rdn_engine")


def fastest_backend(bundle: Bundle, threads: int) -> BackendName:
    """The backend that takes the least time for the backbone of a frame.

    What was measured is kept in the user's cache, for this bundle, processor, number of threads and versions. Where it
    cannot be written, it is measured each time. Of two candidates within the noise of each other either may be taken.

    Args:
        bundle: whose files were checked.
        threads: of each call.

    Returns:
        One of CANDIDATES that can be opened here.

    Raises:
        BundleError, BackendUnavailable: where ONNX Runtime cannot run the bundle.
    """
    place = cache_directory() / f"fastest-{_key(bundle, threads)}.json"
    known = _read(place)
    if known is None:
        known = _measure(bundle, threads)
        _write(place, known)
    best = min(known, key=lambda name: known[name])
    told = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in known.items())
    _log.info("backend 'auto' takes %r; a frame's backbone on %d threads: %s", best, threads, told)
    return best


def _measure(bundle: Bundle, threads: int) -> dict[BackendName, float]:
    """Median seconds of each candidate that is to be had."""
    graphs: dict[BackendName, Graph] = {}
    role = "backbone" if bundle.config.attached is None else "encoder"
    for name, _ in CANDIDATES:
        try:
            graphs[name] = load_backend(name, "cpu", threads).load(bundle.path(role))
        except BackendUnavailable:
            if not graphs:
                raise
    if len(graphs) == 1:
        return dict.fromkeys(graphs, 0.0)
    feeds = {"image": _picture(bundle)}
    seconds: dict[BackendName, list[float]] = {name: [] for name in graphs}
    for turn in range(ROUNDS + 1):
        for name, graph in graphs.items():
            start = time.perf_counter()
            graph(feeds)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _picture(bundle: Bundle) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise of the size that most frames have in this model's network."""
    config = bundle.config.input
    height = config.shorter_side
    width = min(config.longer_side, round(height * WIDTH_OVER_HEIGHT))
    if config.size is not None:
        height, width = config.size
    return np.random.default_rng(0).normal(0, 50, (1, 3, height, width)).astype(np.float32)


def _key(bundle: Bundle, threads: int) -> str:
    """What the times hold for; another bundle, processor or version has another one."""
    parts = [(bundle.directory / MANIFEST).read_bytes().hex(), str(threads), str(ROUNDS), _processor()]
    for _, package in CANDIDATES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{package} {importlib.metadata.version(package)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name, family and model, because virtual machines call many processors by one name; and instruction sets."""
    with contextlib.suppress(OSError), cpuinfo.open(encoding="utf-8") as file:
        return "".join(sorted({line for line in file if line.startswith(("cpu family", "model", "flags"))}))
    return ""


def _read(place: Path) -> dict[BackendName, float] | None:
    """What was written; None where it is missing or damaged."""
    names = {name for name, _ in CANDIDATES}
    try:
        known = json.loads(read_text(place))
    except (OSError, ValueError):
        return None
    good = isinstance(known, dict) and known and set(known) <= names
    return known if good and all(isinstance(seconds, float) for seconds in known.values()) else None


def _write(place: Path, known: dict[BackendName, float]) -> None:
    """Whole or not at all; a cache that cannot be written is no fault."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
            json.dump(known, file)
        os.replace(file.name, place)
    except OSError as error:
        _log.debug("%s cannot be written: %s", place, error)
