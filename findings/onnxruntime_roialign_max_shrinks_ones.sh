#!/usr/bin/env bash
# RoiAlign with mode=max over a map of ones gives 0.64 to 0.89 in ONNX Runtime, and a promise to mend it in 1.13.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: a sample is interpolated from four cells with weights that add up to one. The kernel takes the largest of
#   the four weighted cells instead of their sum, so it depends on where between the cells a box lies. mode=avg is
#   right. onnx.reference computes the same as ONNX Runtime, so the two agree.
# A user of video object detection who replaces average by max pooling, as RDN pools its boxes, gets features that
#   shrink and flicker as a still object moves by fractions of a cell.
# Output seen:
#   avg: 1.00 1.00 1.00 1.00 onnx.reference the same: True
#   max: 0.64 0.64 0.89 0.89 onnx.reference the same: True
#   the log names 1.13: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python -I - 2>log <<'PROGRAM' || { cat log >&2; exit 1; }
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

FEEDS = {
    "map": np.ones((1, 1, 16, 16), np.float32),
    "boxes": np.array([[1.3, 2.2, 11.7, 9.1]], np.float32),
    "images": np.zeros(1, np.int64),
}
found = {}
for mode in ("avg", "max"):
    node = helper.make_node(
        "RoiAlign", list(FEEDS), ["rows"], mode=mode, output_height=2, output_width=2, sampling_ratio=2
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in FEEDS.items()
    ]
    output = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, 1, 2, 2])
    body = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found[mode] = session.run(None, FEEDS)[0].ravel()
    same = bool(np.allclose(found[mode], ReferenceEvaluator(model).run(None, FEEDS)[0].ravel()))
    print(f"{mode}:", *(f"{value:.2f}" for value in found[mode]), f"onnx.reference the same: {same}")
    assert same
assert np.allclose(found["avg"], 1)
assert np.allclose(found["max"], [0.64125, 0.64125, 0.88875, 0.88875], atol=1e-3)
PROGRAM
if grep -q "max mode.*1\.13" log; then echo "the log names 1.13: True"; else cat log >&2; exit 1; fi
