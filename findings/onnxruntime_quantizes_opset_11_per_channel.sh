#!/usr/bin/env bash
# ONNX Runtime quantises a model of opset 11 per channel without a word, and then refuses to load what it has written.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: QuantizeLinear and DequantizeLinear have their axis since opset 13. quantize_static with per_channel=True
#   puts the axis into a model of opset 11 all the same, and returns; onnx.checker and InferenceSession then refuse the
#   file. Converted to opset 13 first, the same model is quantised and runs.
# A user of video object detection meets it with the detectors that people hand around: exports of YOLOX are of opset 11.
# Output seen:
#   opset 11: quantised without an error; loading it: INVALID_GRAPH, Unrecognized attribute: axis
#   opset 13: quantised without an error; loading it: works
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import logging
import re

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable()
rng = np.random.default_rng(0)


class Images(CalibrationDataReader):
    def __init__(self):
        self.left = [{"x": rng.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


weight = numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
sides = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
ends = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])]
graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", sides, ends, [weight])
old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
found = {}
for opset, model in ((11, old), (13, onnx.version_converter.convert_version(old, 13))):
    onnx.checker.check_model(model)
    onnx.save(model, "float.onnx")
    quantize_static("float.onnx", "int8.onnx", Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                    weight_type=QuantType.QInt8)
    try:
        ort.InferenceSession("int8.onnx", providers=["CPUExecutionProvider"])
        found[opset] = "works"
    except Exception as error:
        kind = re.search(r"INVALID_GRAPH", str(error))
        found[opset] = f"{kind[0]}, {re.search(r'Unrecognized attribute: axis', str(error))[0]}" if kind else str(error)
    print(f"opset {opset}: quantised without an error; loading it: {found[opset]}")
assert found == {11: "INVALID_GRAPH, Unrecognized attribute: axis", 13: "works"}
PROGRAM
