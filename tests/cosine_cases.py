"""Made-up proposals for the cosine attention, and how far float32 may be from float64 on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdn_engine.host.cosine_branch import CosineSettings
from tests.reference_cosine import Double, branch

UNIT = 2.0**-24
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Proposals:
    """Of one frame: features [n, D], scores [n]."""

    features_cls: Float
    features_reg: Float
    confidence: Float
    objectness: Float

    def first(self, count: int | None) -> Proposals:
        return Proposals(*(array[:count] for array in self.arrays))

    @property
    def arrays(self) -> tuple[Float, Float, Float, Float]:
        return self.features_cls, self.features_reg, self.confidence, self.objectness


def make_weights(rng: np.random.Generator, settings: CosineSettings) -> dict[str, Float]:
    """As large as keeps every stage near 1."""
    weights = {}
    for name, shape in settings.shapes().items():
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 0.1
        weights[name] = np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)
    return weights


class Objects:
    """Features of a few objects, with noise: some proposals are alike and most are not."""

    def __init__(self, rng: np.random.Generator, dim: int, noise: float = 0.4) -> None:
        self._rng, self._noise = rng, noise
        self._of = rng.standard_normal((2, 5, dim))

    def frame(self, count: int) -> Proposals:
        rng = self._rng
        which = rng.integers(0, 5, count)
        cls, reg = (
            (of[which] + self._noise * rng.standard_normal((count, of.shape[1]))).astype(np.float32) for of in self._of
        )
        return Proposals(cls, reg, rng.random(count, np.float32), rng.random(count, np.float32))


def definition(settings: CosineSettings, weights: dict[str, Float], frames: Sequence[Proposals]) -> dict[str, Double]:
    """Every stage over all rows of the frames."""
    joined = [np.concatenate(arrays) for arrays in zip(*(frame.arrays for frame in frames), strict=True)]
    return branch(
        weights,
        *joined,
        heads=settings.heads,
        objectness_on_key=settings.objectness_on_key,
        values=settings.values,
        similarity=settings.similarity,
        value_similarity=settings.value_similarity,
    )


def undecided(settings: CosineSettings, found: dict[str, Double]) -> bool:
    """Whether some pair is so near to a threshold that float32 values cannot tell: they are rounded once."""
    pairs = [(found["sim"], settings.similarity)]
    if settings.value_similarity is not None:
        pairs.append((found["sim_values"], settings.value_similarity))
    return any(bool((np.abs(sim - threshold) < 4 * UNIT).any()) for sim, threshold in pairs)


def allowed(
    settings: CosineSettings, weights: dict[str, Float], found: dict[str, Double], rows: slice
) -> dict[str, Double]:
    """Bound of the error of `x`, `weights2` and `out` of some rows.

    A logit is 25 times a product of d terms of at most 1 in all: queries and keys are rounded once each, the sum at
    every term; its term of the softmax is off by as much again for exp2. Softmax terms that are off by a factor
    1 + e move a mean of values by at most 2 e times their mean distance from it. Sums of a block's values are rounded
    at each of at most 128 terms.
    """
    dim = settings.dim
    e = 25 * UNIT * (dim // settings.heads + 4) + 4 * UNIT
    sums = 132 * UNIT
    x, weights2 = found["x"], found["weights2"][rows]
    values = x[:, dim:].reshape(len(x), settings.heads, -1)
    mean = (found["attn_cls"] + found["attn_reg"]) / 2
    own = x[:, :dim].reshape(values.shape)
    apart = np.stack([mean[h] @ np.abs(values[:, h]) for h in range(settings.heads)], 1) + np.abs(own)
    off = (2 * e + sums) * apart.reshape(len(x), dim) + UNIT * np.abs(x[:, :dim])
    x_off = np.concatenate([off, 2 * UNIT * np.abs(x[:, dim:])], 1)
    w_off = (2 * e + 8 * UNIT) * weights2
    mean_off = weights2 @ (x_off + sums * np.abs(x)) + w_off @ (np.abs(x)) * 2
    first, last = (np.float64(weights[f"{layer}.weight"]) for layer in ("linear1", "linear2"))
    both = np.concatenate([last[:, : 2 * dim] @ first, last[:, 2 * dim :] @ first], 1)
    z = np.concatenate([weights2 @ x, x[rows]], 1)
    z_off = np.concatenate([mean_off, x_off[rows]], 1) + 2 * UNIT * np.abs(z)
    out = z_off @ np.abs(both).T + UNIT * np.abs(found["out"][rows])
    return {"x": x_off[rows], "weights": w_off + UNIT, "attention": (2 * e * mean.mean(0) + 8 * UNIT)[rows], "out": out}
