#!/usr/bin/env bash
# An fp16 graph that overflows gives the right numbers in ONNX Runtime on a CPU: it is computed in float32.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64 (no provider but the CPU's).
# Behaviour: the kernels of most operators exist in float32 alone. Casts are put around them and those between two
#   of them fall away, so 60000 + 60000 is 120000 inside a graph whose every tensor is declared fp16, with all
#   optimisations disabled too. What the graph says, and what fp16 hardware does, is infinity. As an output the sum is.
# A user of video object detection checks an fp16 export on the CPU, sees it agree with float32, and gets no detections
#   on the GPU: a backbone's largest activations are where it happens.
# Output seen:
#   (x + x) / 2 for x = 60000: ONNX Runtime 60000, without optimisations 60000, onnx.reference inf, numpy inf
#   x + x as the output: ONNX Runtime inf
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
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

np.seterr(over="ignore")
X, HALF = np.array([60000], np.float16), np.array(0.5, np.float16)


def graph(output):
    nodes = [helper.make_node("Add", ["x", "x"], ["sum"]), helper.make_node("Mul", ["sum", "half"], ["mean"])]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1]) for name in ("x", output)]
    body = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [numpy_helper.from_array(HALF, "half")])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(output, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(graph(output).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": X})[0][0])


levels = ort.GraphOptimizationLevel
optimised, plain = run("mean", levels.ORT_ENABLE_ALL), run("mean", levels.ORT_DISABLE_ALL)
reference = float(ReferenceEvaluator(graph("mean")).run(None, {"x": X})[0][0])
numpy = float(((X + X) * HALF)[0])
print(
    f"(x + x) / 2 for x = 60000: ONNX Runtime {optimised:.0f}, without optimisations {plain:.0f}, "
    f"onnx.reference {reference:.0f}, numpy {numpy:.0f}"
)
total = run("sum", levels.ORT_ENABLE_ALL)
print(f"x + x as the output: ONNX Runtime {total:.0f}")
assert (optimised, plain) == (60000, 60000)
assert reference == numpy == total == np.inf
PROGRAM
