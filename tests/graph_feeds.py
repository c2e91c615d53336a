"""Inputs for the graphs of a bundle, and how outputs are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


def feeds_of(path: Path, sizes: dict[str, int] | None = None, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng, feeds = np.random.default_rng(seed), {}
    sizes = {"batch": 1, "height": 64, "width": 96, "support_rows": 4} | (sizes or {})
    for value in onnx.load(path).graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or sizes.get(d.dim_param, 7) for d in kind.shape.dim]
        feeds[value.name] = rng.standard_normal(shape, np.float32)
        if value.name.endswith("boxes"):
            corner = rng.uniform(0, 100, (shape[0], 2))
            feeds[value.name] = np.float32(np.concatenate([corner, corner + rng.uniform(10, 50, corner.shape)], 1))
        if kind.elem_type == onnx.TensorProto.INT64:
            feeds[value.name] = np.arange(shape[0])[::-1].copy()
    return feeds


def assert_close(got: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    assert list(got) == list(wanted)
    for name, exact in wanted.items():
        assert (got[name].shape, got[name].dtype) == (exact.shape, exact.dtype), name
        assert np.abs(got[name] - exact).max() <= tolerance * np.abs(exact).max(), name
