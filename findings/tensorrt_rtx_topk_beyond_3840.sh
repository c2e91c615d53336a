#!/usr/bin/env bash
# TensorRT for RTX reads a graph with a TopK of 3841 and then builds nothing; 3840 it builds, without a GPU.
#
# Seen with: tensorrt-rtx-cu13-libs and -bindings 1.7.1.116, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64, no GPU
#   and no driver.
# Behaviour: `OnnxParser.parse` returns True for any k up to the axis' length. `build_serialized_network` returns None
#   where k is beyond 3840; the parser's list of errors is empty, only the logger is told. Compiling takes no GPU.
# A user of video object detection exports a two-stage detector whose RPN keeps the best 6000 anchors before NMS, the
#   usual number: what checks `parse` alone finds it sound, and serialising None fails somewhere else.
# Output seen:
#   k 3840: parsed True, 0 errors, built True
#   k 3841: parsed True, 0 errors, built False
#   k 6000: parsed True, 0 errors, built False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116 \
    onnx==1.23.2 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import numpy as np
import onnx
import tensorrt_rtx_bindings as trt
from onnx import TensorProto, helper, numpy_helper


class Silent(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.said = []

    def log(self, severity, message):
        if severity <= trt.ILogger.ERROR:
            self.said.append(message)


def build(k):
    body = helper.make_graph(
        [helper.make_node("TopK", ["scores", "k"], ["best", "which"])],
        "g",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8000])],
        [
            helper.make_tensor_value_info("best", TensorProto.FLOAT, [1, k]),
            helper.make_tensor_value_info("which", TensorProto.INT64, [1, k]),
        ],
        [numpy_helper.from_array(np.array([k], np.int64), "k")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    logger = Silent()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    print(f"k {k}: parsed {parsed}, {parser.num_errors} errors, built {plan is not None}")
    assert plan is not None or logger.said
    return parsed, parser.num_errors, plan is not None


assert build(3840) == (True, 0, True)
assert build(3841) == build(6000) == (True, 0, False)
PROGRAM
