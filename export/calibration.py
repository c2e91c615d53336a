"""Frames to calibrate on, and the ranges that the activations of a graph take on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from rdn_engine.errors import PrecisionError
from rdn_engine.frame import Image
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.media.source import open_source

DEFAULT_FRAMES = 64
HELD_OUT = 24
"""Most consecutive frames that the result is judged on."""
LEAST_FRAMES = 8
MOST_FRAMES = 10_000
"""Of a longer source only so many are looked at."""

METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99

_SAMPLES = 4096  # of one tensor and frame; 64 frames are 26 in the part that the percentile cuts off
_LEVELS, _FINE = 256, 8  # of uint8, and histogram bins in each

Ranges = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class CalibrationFrames:
    """Of one source: the ranges come from `calibrate`, evenly spaced in its first three quarters, and the result is
    judged on `held_out`, consecutive frames of the last quarter.
    """

    calibrate: list[Image]
    held_out: list[Image]

    @classmethod
    def read(cls, source: str | Path, count: int = DEFAULT_FRAMES) -> CalibrationFrames:
        """Chooses the frames of a source.

        Args:
            source: a video or a folder of images.
            count: frames to calibrate on at most, 1 or more.

        Returns:
            The frames to calibrate on and those to judge the result on.

        Raises:
            VideoError: the source cannot be read.
            PrecisionError: it has too few frames, or `count` is below 1.
        """
        if count < 1:
            raise PrecisionError(f"{count} calibration frames were asked for; wanted 1 or more")
        with open_source(source) as video:
            length = sum(1 for _ in islice(video, MOST_FRAMES))
        if length < LEAST_FRAMES:
            raise PrecisionError(
                f"{source} has {length} readable frames; wanted at least {LEAST_FRAMES} to calibrate on"
            )
        first = length - length // 4
        chosen = {int(i) for i in np.linspace(0, first - 1, min(count, first))}
        judged = range(first, min(length, first + HELD_OUT))
        with open_source(source) as video:
            kept = {i: frame.image for i, frame in enumerate(islice(video, length)) if i in chosen or i in judged}
        return cls([kept[i] for i in sorted(chosen)], [kept[i] for i in judged])


class Activations:
    """Values that a graph's tensors took: extremes of all, and a sample spread evenly over each tensor."""

    def __init__(self) -> None:
        self._extremes: Ranges = {}
        self._samples: dict[str, list[Float]] = {}

    def add(self, name: str, values: Float) -> None:
        """Takes the values of one tensor on one frame.

        Args:
            name: of the tensor.
            values: of any shape.

        Raises:
            PrecisionError: a value is not finite.
        """
        if not np.isfinite(values).all():
            raise PrecisionError(f"tensor {name!r} of the float32 graph has values that are not finite on these frames")
        low, high = self._extremes.get(name, (0.0, 0.0))  # 0 must have a code of its own: padding is 0
        self._extremes[name] = min(low, float(values.min())), max(high, float(values.max()))
        # An odd stride, or it would meet the same channels at every cell.
        stride = max(1, values.size // _SAMPLES) | 1
        self._samples.setdefault(name, []).append(values.reshape(-1)[::stride].copy())

    def ranges(self, method: str) -> Ranges:
        """The range of each tensor; 0 lies in all of them.

        Args:
            method: of `METHODS`.

        Returns:
            Tensor -> (lowest, highest) value that gets a code of its own.
        """
        choose: dict[str, Callable[[Float, float, float], tuple[float, float]]] = {
            "minmax": lambda _, low, high: (low, high),
            "percentile": _percentile,
            "entropy": _entropy,
        }
        return {
            name: choose[method](np.concatenate(self._samples[name]), *extremes)
            for name, extremes in self._extremes.items()
        }


def observer(graph: Path, names: list[str]) -> Callable[[dict[str, NDArray[np.generic]]], dict[str, Float]]:
    """A look into a graph.

    Args:
        graph: ONNX file.
        names: of tensors of it, be they outputs or not.

    Returns:
        A function from the inputs of the graph to the tensors called `names`.
    """
    proto = onnx.load(graph)
    outputs = {value.name for value in proto.graph.output}
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in outputs
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _percentile(sample: Float, low: float, high: float) -> tuple[float, float]:
    cut = (100 - PERCENTILE) / 2 if low < 0 else 100 - PERCENTILE
    below = float(np.percentile(sample, cut)) if low < 0 else 0.0
    return min(below, 0.0), max(float(np.percentile(sample, 100 - cut)), 0.0)


def _entropy(sample: Float, low: float, high: float) -> tuple[float, float]:
    """The part of the range whose 8-bit codes lose least of the distribution, by Kullback-Leibler divergence
    (TensorRT's method); what lies outside counts to the outermost codes.
    """
    sample = sample[sample != 0]  # has a code of its own in every range; after a ReLU it would outweigh the rest
    if not sample.size:
        return low, high
    divergences = {part: _divergence(sample, part * low, part * high) for part in np.linspace(0.2, 1, 33)}
    best = min(divergences, key=lambda part: divergences[part])
    return best * low, best * high


def _divergence(sample: Float, low: float, high: float) -> float:
    bins = _LEVELS * _FINE
    inside, _ = np.histogram(sample, bins, (low, high))
    true = inside.astype(np.float64)
    true[0] += (sample < low).sum()
    true[-1] += (sample > high).sum()
    occupied = (true > 0).reshape(_LEVELS, _FINE)
    # Each code spreads its share evenly over the values that occur: what is outside is missing from it.
    share = inside.reshape(_LEVELS, _FINE).sum(1) / np.maximum(occupied.sum(1), 1)
    coded = (share[:, None] * occupied).reshape(-1)
    p, q = true / true.sum(), np.maximum(coded / max(coded.sum(), 1), 1e-12)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())
