#!/usr/bin/env bash
# Whether a NaN survives ONNX Runtime's MaxPool or ReduceMax depends on its place; beside it the maximum can be wrong.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: one NaN in [3, 1, 2, 0], at each of the four places in turn. numpy and torch say NaN four times. The CPU
#   kernels say it once, each at another place, and MaxPool over [3, 1, NaN, 0] says 1: it has forgotten the 3.
#   ReduceMax of onnx.reference, the standard's own, says NaN four times.
# A user of video object detection looks for NaN in what a graph puts out, to find a broken export or an overflow in
#   half precision. A ResNet's max pooling stands behind its first convolution: the outputs can look sound.
# Output seen:
#   NaN at place 0 1 2 3
#   MaxPool      2 3 1 nan
#   ReduceMax    nan 3 3 3
#   onnx.reference, ReduceMax: nan nan nan nan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

OPERATORS = {"MaxPool": {"kernel_shape": [1, 4]}, "ReduceMax": {"axes": [3]}}


def maxima(operator):
    """of ONNX Runtime and of onnx.reference, for a NaN at each place"""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, n]) for name, n in (("x", 4), ("y", 1))]
    node = helper.make_node(operator, ["x"], ["y"], **OPERATORS[operator])
    body = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    runners = (
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]),
        ReferenceEvaluator(model),
    )
    values = np.empty((2, 4), np.float32)
    for place in range(4):
        x = np.array([3, 1, 2, 0], np.float32)
        x[place] = np.nan
        assert np.isnan(x.max())
        for row, runner in enumerate(runners):
            values[row, place] = runner.run(None, {"x": x.reshape(1, 1, 1, 4)})[0].item()
    return values


found = {operator: maxima(operator) for operator in OPERATORS}
print("NaN at place 0 1 2 3")
for operator, (ours, _) in found.items():
    print(f"{operator:12}", *(f"{value:g}" for value in ours))
print("onnx.reference, ReduceMax:", *(f"{value:g}" for value in found["ReduceMax"][1]))
nan = np.nan
np.testing.assert_array_equal(found["MaxPool"][0], [2, 3, 1, nan])
np.testing.assert_array_equal(found["ReduceMax"][0], [nan, 3, 3, 3])
assert np.isnan(found["ReduceMax"][1]).all()
PROGRAM
