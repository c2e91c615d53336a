"""ONNX Runtime on the CPU: named arrays in and out, and its refusals as typed errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from rdn_engine import BundleError, RDNError
from rdn_engine.backends import load_backend


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """y = a + b over [n, 2]"""
    shape = ["n", 2]
    a, b, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "aby")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["a", "b"], ["y"])], "add", [a, b], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path / "add.onnx"
    onnx.save(model, path)
    return path


def test_onnxruntime_runs_named_arrays(graph_file: Path) -> None:
    backend = load_backend("onnxruntime", "cpu", 1)
    assert backend.name == "onnxruntime"
    graph = backend.load(graph_file)
    assert (graph.inputs, graph.outputs) == (("a", "b"), ("y",))
    for n in (3, 1, 0):
        ones = np.ones((n, 2), np.float32)
        np.testing.assert_array_equal(graph({"a": ones, "b": 2 * ones})["y"], 3 * ones)


def test_onnxruntime_errors_are_ours(graph_file: Path) -> None:
    backend = load_backend("onnxruntime", "cpu", 1)
    graph = backend.load(graph_file)
    with pytest.raises(RDNError, match=r"add.onnx failed on \{'a': 'float32\[1, 3\]'"):
        graph({"a": np.ones((1, 3), np.float32), "b": np.ones((1, 2), np.float32)})
    graph_file.write_bytes(b"no graph at all")
    with pytest.raises(BundleError, match=r"cannot load add\.onnx"):
        backend.load(graph_file)
    with pytest.raises(BundleError, match=r"cannot load gone\.onnx"):
        backend.load(graph_file.with_name("gone.onnx"))
