#!/usr/bin/env bash
# A compiled model's output goes by the name of a tensor inside the graph.
#
# Seen with: openvino 2026.4.1, onnx 1.23.2, Python 3.11, Linux x86-64.
# Behaviour: a graph ends in two Reshape nodes, `mid` and `y`. As read, its output has the one name `y`. Compiled for the
#   CPU, where the two become one node, the same output has both names, and `get_any_name()` gives `mid`. Asking for the
#   output as `y` works.
# A user of video object detection finds results by the names that the exporter gave them: names listed from the compiled
#   model are others than those of the file. Taking them from the model as it was read is an answer.
# Output seen:
#   read:     y of ['y']
#   compiled: mid of ['mid', 'y']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 onnx==1.23.2 numpy
venv/bin/python - <<'PROGRAM'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper

weights = {"w": np.ones((4, 4), np.float32), "first": np.array([-1, 4]), "second": np.array([0, -1])}
nodes = [
    helper.make_node("MatMul", ["x", "w"], ["product"]),
    helper.make_node("Reshape", ["product", "first"], ["mid"]),
    helper.make_node("Reshape", ["mid", "second"], ["y"]),
]
graph = helper.make_graph(
    nodes,
    "two reshapes",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "columns"])],
    [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "graph.onnx")
core = openvino.Core()
model = core.read_model("graph.onnx")
compiled = core.compile_model(model, "CPU")
[read], [made] = model.outputs, compiled.outputs
print(f"read:     {read.get_any_name()} of {sorted(read.get_names())}")
print(f"compiled: {made.get_any_name()} of {sorted(made.get_names())}")
assert (read.get_any_name(), sorted(read.get_names())) == ("y", ["y"])
assert (made.get_any_name(), sorted(made.get_names())) == ("mid", ["mid", "y"])
assert compiled({"x": np.ones((1, 2, 4), np.float32)})["y"].shape == (2, 4)
PROGRAM
