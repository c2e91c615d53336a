#!/usr/bin/env bash
# ONNX Runtime raises a class of its own for each kind of failure, and nothing but Exception is common to them.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6; Python 3.11, Linux x86-64 (no provider but the CPU's).
# Behaviour: the classes live in a private module and derive from Exception each by itself, not from RuntimeError,
#   ValueError or OSError; one input too few is Python's ValueError, one too many InvalidArgument. A bfloat16 graph,
#   valid to onnx.checker, is NotImplemented when the session is made: the CPU has no kernel for it.
# A user of video object detection who wants to tell "this file is broken" from "this machine cannot run it" has to
#   catch Exception, or name classes of a private module; `except RuntimeError` and `except OSError` catch none of them.
# Output seen:
#   no such file:       NoSuchFile < Exception
#   not a graph:        InvalidProtobuf < Exception
#   unknown operator:   InvalidGraph < Exception
#   bfloat16:           NotImplemented < Exception
#   wrong shape:        InvalidArgument < Exception
#   an input too many:  InvalidArgument < Exception
#   an input too few:   ValueError < Exception
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


def graph(kind, operator="Relu"):
    tensors = [helper.make_tensor_value_info(name, kind, [1, 2]) for name in "xy"]
    body = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if operator == "Relu":
        onnx.checker.check_model(model)
    return model.SerializeToString()


def session(source):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


sound, x = session(graph(TensorProto.FLOAT)), np.zeros((1, 2), np.float32)
CASES = {
    "no such file": ("NoSuchFile", lambda: session("missing.onnx")),
    "not a graph": ("InvalidProtobuf", lambda: session(b"text")),
    "unknown operator": ("InvalidGraph", lambda: session(graph(TensorProto.FLOAT, "Unknown"))),
    "bfloat16": ("NotImplemented", lambda: session(graph(TensorProto.BFLOAT16))),
    "wrong shape": ("InvalidArgument", lambda: sound.run(None, {"x": x.T})),
    "an input too many": ("InvalidArgument", lambda: sound.run(None, {"x": x, "z": x})),
    "an input too few": ("ValueError", lambda: sound.run(None, {})),
}
for name, (expected, call) in CASES.items():
    try:
        call()
    except Exception as error:
        kind = type(error)
    else:
        raise SystemExit(f"{name}: no error")
    bases = [base.__name__ for base in kind.__mro__[1:-2]]
    print(f"{name + ':':19} {kind.__name__} < {' < '.join(bases)}")
    assert (kind.__name__, bases) == (expected, ["Exception"]), (name, kind, bases)
PROGRAM
