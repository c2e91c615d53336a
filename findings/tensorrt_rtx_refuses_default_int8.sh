#!/usr/bin/env bash
# What ONNX Runtime's static quantisation writes by default, TensorRT for RTX refuses: activations with a zero point.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6, tensorrt-rtx-cu13-libs and -bindings 1.7.1.116; Python 3.11,
#   Linux x86-64, no GPU and no driver.
# Behaviour: both call it QDQ. `quantize_static` gives int8 activations the range that was seen, so the zero point is
#   not 0 (behind a ReLU it is -128), and the parser ends at the first QuantizeLinear. With ActivationSymmetric it
#   builds. With uint8 activations and a zero point of 0 it builds too, but the library warns that it reads them as
#   int8, whose codes end at 127.
# A user of video object detection quantises on the CPU, measures AP there, and finds at deployment that the calibration
#   has to be done again with other options, and that the AP is another one.
# Output seen:
#   default:   zero point not 0, refused: Non-zero zero point is not supported
#   symmetric: zero point 0, built
#   uint8:     zero point 0, built, with a warning: Defaulting to INT8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116 \
    onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
venv/bin/python -I - 2>messages <<'PROGRAM' || { cat messages >&2; exit 1; }
import numpy as np
import onnx
import tensorrt_rtx_bindings as trt
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

SHAPE = [1, 16, 16, 16]


class Frames(CalibrationDataReader):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.left = [{"x": rng.uniform(0, 1, SHAPE).astype(np.float32)} for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


class Logger(trt.ILogger):
    def __init__(self):
        super().__init__()
        self.said = ""

    def log(self, severity, message):
        if severity <= trt.ILogger.WARNING:
            self.said += message + "\n"


weight = np.random.default_rng(1).normal(size=(16, 16, 3, 3)).astype(np.float32)
body = helper.make_graph(
    [
        helper.make_node("Conv", ["x", "w"], ["sum"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ],
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)],
    [numpy_helper.from_array(weight, "w")],
)
model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
onnx.checker.check_model(model)
onnx.save(model, "exact.onnx")


def attempt(name, **options):
    quantize_static("exact.onnx", "int8.onnx", Frames(), **options)
    quantised = onnx.load("int8.onnx")
    onnx.checker.check_model(quantised)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    zero = next(int(constants[n.input[2]]) for n in quantised.graph.node if n.op_type == "QuantizeLinear")
    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(quantised.SerializeToString())
    built = parsed and builder.build_serialized_network(network, builder.create_builder_config()) is not None
    why = "Non-zero zero point is not supported"
    said = "built" if built else f"refused: {why if why in logger.said else logger.said}"
    if "Defaulting to INT8" in logger.said:
        said += ", with a warning: Defaulting to INT8"
    print(f"{name + ':':10} zero point {'0' if zero == 0 else 'not 0'}, {said}")
    return zero == 0, said


assert attempt("default") == (False, "refused: Non-zero zero point is not supported")
symmetric = {"ActivationSymmetric": True}
assert attempt("symmetric", extra_options=symmetric) == (True, "built")
assert attempt("uint8", activation_type=QuantType.QUInt8) == (True, "built, with a warning: Defaulting to INT8")
PROGRAM
