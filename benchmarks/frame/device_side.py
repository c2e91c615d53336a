"""What `latency.py` measures on a GPU: the device's runtime and its streams, frames from the host, results to the host.

A steady frame takes milliseconds there, so windows are filled live, with the distinct frames that fill them on the CPU
(sides.py): the detections of the first steady frame can then be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.frame.settings import Process, Setting
from benchmarks.frame.sides import DISTINCT, Rows, Sample, rows_of
from benchmarks.frames import Image, make_frame
from benchmarks.measure import energy_counter
from rdn_engine.backends.graph import BackendName, Device
from rdn_engine.bundle.directory import Bundle
from rdn_engine.detector import Detector, RelationPrecision
from rdn_engine.errors import ConfigError
from rdn_engine.results import Detections

LEAST_IN_COMMON, LEAST_IN_COMMON_REDUCED = 0.95, 0.5
"""Of boxes, with the CPU's in the same precision. Synthetic weights of a ResNet-101 have scores so alike that fp16 and
float32 share two boxes of three on one and the same CPU; a wrong kernel shares next to none."""
_DETECTION = 6  # columns of `detection_rows`

Push = Callable[[Image], list[Detections]]
"""One frame to every stream of a setting -> what became ready, of each"""


class DeviceSide:
    """`rdn_engine.Detector` on the device that the process names."""

    def __init__(self, process: Process) -> None:
        if process.shorter_side is not None or process.executor != "fused":
            raise ConfigError(
                f"device {process.device!r} measures the fused executor at the bundle's own size; got {process}"
            )
        self._detector = open_detector(process.engines, process.backend, process.device, process.threads)
        given = self._detector.config.input
        self._size = given.shorter_side, given.longer_side
        # Made once: each takes a tenth of a second at 600 x 1000, the device a few thousandths.
        self._distinct = [make_frame(t, self._size) for t in range(DISTINCT)]
        self._energy = energy_counter(process.device).read
        self._settings: dict[str, Setting] = {}
        self._open: dict[str, tuple[Any, Push]] = {}
        self._pushed: dict[str, int] = {}

    def open(self, key: str, setting: Setting) -> None:
        self._settings[key], self._pushed[key] = setting, 0
        if setting.kind == "batch":
            raise ConfigError("on a device the encoder is measured with its streams; wanted the sweep `streams`")
        if setting.kind == "push":
            self._open[key] = self._streams(setting)
            self._pushed[key] = setting.dials.window + setting.dials.frames_ahead
            _, push = self._open[key]
            for t in range(self._pushed[key]):
                push(self._distinct[t % DISTINCT])

    def drop(self, key: str) -> None:
        """Gives the memory of a setting back."""
        if key in self._open:
            self._open.pop(key)[0].close()

    def check(self, key: str) -> list[Rows]:
        if self._settings[key].kind == "first":
            return [rows_of(found) for found in self._first(key)]
        _, push = self._open[key]
        return [rows_of(found) for found in push(self._next(key))]

    def time(self, key: str) -> Sample:
        setting = self._settings[key]
        if setting.kind == "first":
            return self._timed(lambda: self._first(key), 1)
        (_, push), frame = self._open[key], self._next(key)
        return self._timed(lambda: push(frame), setting.streams)

    def _streams(self, setting: Setting) -> tuple[Any, Push]:
        """One stream, or a batch of several, whose frames are encoded together; what closes it, and what pushes."""
        count = setting.streams
        if count == 1:
            stream = self._detector.open_stream(setting.dials)
            return stream, stream.push
        detector: Any = self._detector
        batch = detector.open_streams([str(i) for i in range(count)], setting.dials)
        return batch, lambda frame: [result for ready in batch.push([frame] * count) for result in ready]

    def _first(self, key: str) -> list[Detections]:
        dials = self._settings[key].dials
        with self._detector.open_stream(dials) as stream:
            ready = [stream.push(self._distinct[t % DISTINCT]) for t in range(dials.frames_ahead + 1)]
        return ready[-1]

    def _next(self, key: str) -> Image:
        frame = make_frame(self._pushed[key], self._size)
        self._pushed[key] += 1
        return frame

    def _timed(self, work: Callable[[], object], frames: int) -> Sample:
        joules = self._energy() if self._energy else 0.0
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
        spent = (self._energy() - joules) / frames if self._energy else None
        return Sample(1000 * seconds / frames, {}, spent, 0)


def open_detector(engines: str, backend: BackendName, device: Device, threads: int) -> Detector:
    """On a device, the relation stage of a bundle in reduced precision is in float16, which tensor cores take."""
    precision: RelationPrecision = "float32"
    if device == "cuda" and Bundle.open(engines).manifest.precision in ("fp16", "bf16", "fp8"):
        precision = "float16"
    return Detector.from_pretrained(
        engines, backend=backend, device=device, threads=threads, relation_precision=precision
    )


def captured_programs(stream: Any) -> int:
    """Of a stream on a device: how many of its programs are replayed as a CUDA graph. Nothing of the product asks."""
    return sum(program._launch is not None for program in stream._steps._programs.values())


def relation_graph(stream: Any) -> Callable[[], object]:
    """Of a stream on a device whose window is full: the relation stage of its newest frame alone, as a CUDA graph."""
    steps, queue = stream._steps._relation, stream._queue

    def work() -> None:
        steps.slide()
        steps.result()

    launch: Callable[[], object] = queue.capture(work)
    return launch


def share_in_common(got: Sequence[Rows], wanted: Sequence[Rows]) -> float:
    """Of the boxes of both sides the part that the other has too: IoU of 0.5, the same class, at least half the score.

    Rows are `detection_rows`, or proposals: boxes, objectness and what is not looked at. In half precision a few
    proposals of nearly equal scores change places, and each brings or takes a box; the largest difference of a row
    then says nothing.
    """
    found = compared = 0
    for ours, theirs in zip([*got, *wanted], [*wanted, *got], strict=True):
        compared += len(ours)
        found += sum(_has_counterpart(row, theirs) for row in ours)
    return found / compared if compared else 0.0


def _has_counterpart(row: Rows, others: Rows) -> bool:
    fits = others[:, 4] >= row[4] / 2
    if len(row) == _DETECTION:
        fits &= others[:, 5] == row[5]
    low, high = np.maximum(row[:2], others[:, :2]), np.minimum(row[2:4], others[:, 2:4])
    overlap = (high - low).clip(0).prod(1)
    areas = [(boxes[..., 2:4] - boxes[..., :2]).prod(-1) for boxes in (row, others)]
    return bool((fits & (overlap >= 0.5 * (areas[0] + areas[1] - overlap))).any())
