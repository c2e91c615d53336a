"""One branch of YOLOV's attention: what it computes, and its weights as the kernels want them.

Shi et al., *YOLOV: Making Still Image Object Detectors Great at Video Object Detection*, AAAI 2023; YOLOV++ has two
branches of it. DESIGN section 2, Cosine score attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdn_engine.errors import BundleError, ConfigError
from rdn_engine.kernels import cpu
from rdn_engine.kernels.arithmetic import round_up
from rdn_engine.kernels.cpu.arrays import Double, Float


@dataclass(frozen=True)
class CosineSettings:
    """What a branch computes. The defaults are YOLOV's online head.

    Raises:
        ConfigError: for a value outside its range.
    """

    dim: int
    """D, channels of a description; a multiple of the heads"""
    heads: int = 4
    """M"""
    objectness_on_key: bool = True
    """whether a key's objectness multiplies the logits of the attention of reg, as its confidence those of cls"""
    values: Literal["cls", "reg"] = "cls"
    """whose values are summed; `reg` is YOLOV++'s objectness branch"""
    similarity: float = 0.75
    """of the values of cls, above which the second round takes a pair"""
    value_similarity: float | None = None
    """of the values that are summed, likewise; None asks for no more than `similarity`"""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim < self.heads or self.dim % self.heads:
            raise ConfigError(f"dim is {self.dim} with {self.heads} heads; wanted a positive multiple of the heads")
        if self.values not in ("cls", "reg"):
            raise ConfigError(f"values is {self.values!r}; wanted 'cls' or 'reg'")
        for name in ("similarity", "value_similarity"):
            threshold = getattr(self, name)
            if threshold is not None and not -1 <= threshold < 1:
                raise ConfigError(f"{name} is {threshold}; wanted a cosine in -1..1, less than 1")

    @property
    def head_room(self) -> int:
        """Channels of a head in memory: whole panels."""
        return round_up(self.dim // self.heads, cpu.PANEL)

    @property
    def thresholds(self) -> Float:
        """[masks] of the second round."""
        both = (self.similarity, self.value_similarity)
        return np.array([threshold for threshold in both if threshold is not None], np.float32)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of a branch's weights."""
        d = self.dim
        return {
            "qkv_cls.weight": (3 * d, d),
            "qkv_reg.weight": (3 * d, d),
            "linear1.weight": (2 * d, 2 * d),
            "linear1.bias": (2 * d,),
            "linear2.weight": (4 * d, 4 * d),
            "linear2.bias": (4 * d,),
        }

    def spread(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Put room between heads.

        Args:
            rows: [..., M d] channels head after head.

        Returns:
            [..., M head_room], zeros past a head's channels.
        """
        apart = rows.reshape(*rows.shape[:-1], self.heads, -1)
        padding = [(0, 0)] * (apart.ndim - 1) + [(0, self.head_room - apart.shape[-1])]
        return np.pad(apart, padding).reshape(*rows.shape[:-1], -1)


def branch_weights(
    tensors: Mapping[str, NDArray[Any]], settings: CosineSettings, prefix: str, suffix: str = ""
) -> dict[str, Float]:
    """A branch's weights out of a model's, by the names of the public checkpoints.

    Args:
        tensors: by name; others are ignored.
        settings: say what shapes are wanted.
        prefix: `head.trans` (YOLOV), `head.agg` or `head.agg_iou` (YOLOV++), or what stands for it.
        suffix: of the two linear layers' names, `_obj` of YOLOV++'s objectness branch.

    Returns:
        As `CosineBranch` takes them.

    Raises:
        BundleError: for a weight that is missing or of another shape.
    """
    found = {}
    for name, shape in settings.shapes().items():
        layer, part = name.split(".")
        whole = f"{prefix}.msa.{name}" if layer.startswith("qkv") else f"{prefix}.{layer}{suffix}.{part}"
        array = tensors.get(whole)
        if array is None or array.shape != shape:
            got = "is missing" if array is None else f"is {list(array.shape)}"
            raise BundleError(f"weight {whole} {got}; wanted {list(shape)}")
        found[name] = np.asarray(array, np.float32)
    return found


class CosineBranch:
    """The weights of one branch, as the kernels want them. Holds no state of any video."""

    def __init__(self, settings: CosineSettings, weights: Mapping[str, Float], threads: int = 1) -> None:
        """Prepare the weights.

        The rows of W add up to 1, so that W linear1(x) = linear1(W x), and the two linear layers become one.

        Args:
            settings: of the branch.
            weights: of `branch_weights`.
            threads: bounds the CPU threads of every call.
        """
        self.settings, self.threads = settings, threads
        dim = settings.dim
        self._project = tuple(
            cpu.pack_weight(
                np.ascontiguousarray(
                    settings.spread(weights[f"qkv_{name}.weight"].T.reshape(dim, 3, dim)).reshape(dim, -1).T
                )
            )
            for name in ("cls", "reg")
        )
        self._no_bias = np.zeros(3 * settings.heads * settings.head_room)
        first, first_bias, last, last_bias = (
            np.asarray(weights[f"{layer}.{part}"], np.float64)
            for layer in ("linear1", "linear2")
            for part in ("weight", "bias")
        )
        halves = last[:, : 2 * dim], last[:, 2 * dim :]
        both = np.concatenate([half @ first for half in halves], 1)
        self._last = cpu.pack_weight(
            np.asarray(settings.spread(both.reshape(4 * dim, 4, dim)).reshape(4 * dim, -1), np.float32)
        )
        self._last_bias = sum(half @ first_bias for half in halves) + last_bias

    def project(self, features_cls: Float, features_reg: Float) -> tuple[Double, Double]:
        """Queries, keys and values [n, 3 M head_room] of descriptions [n, D], of cls and of reg."""
        cls, reg = (
            cpu.linear_exact(features, weight, self._no_bias, threads=self.threads)
            for features, weight in zip((features_cls, features_reg), self._project, strict=True)
        )
        return cls, reg

    def finish(self, rounds: Float) -> Float:
        """What the second round gives, [n, 4 M head_room], through both linear layers -> [n, 4 D]."""
        return cpu.linear_exact(rounds, self._last, self._last_bias, threads=self.threads).astype(np.float32)
