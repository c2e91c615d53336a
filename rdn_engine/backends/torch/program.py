"""An ONNX graph of a bundle as a torch module, operator by operator. Only the torch backend imports this.

Shapes and indices are Python numbers all the way, so that nothing on a device is waited for; constants are buffers;
a tensor is let go after the last operator that reads it. Convolutions are channels-last, which is how a bundle's
feature map leaves the backbone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import DTypeLike
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from rdn_engine.errors import BackendUnavailable, BundleError

Ints = tuple[int, ...]
Value = Tensor | int | Ints
"""A tensor on the device; a number or a list of them where the graph computes shapes"""
Attributes = dict[str, Any]
Operator = Callable[..., Value]

_DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
}


class Program(nn.Module):
    """A graph whose `inputs` and `outputs` are name -> numpy's type, in the order of the graph. Constants are its
    buffers.
    """

    def __init__(self, path: Path) -> None:
        """Read the graph.

        Args:
            path: an ONNX file.

        Raises:
            BundleError: for a file that is no ONNX graph.
            BackendUnavailable: for an operator that is not in OPERATORS.
        """
        super().__init__()
        graph = _read(path)
        self.inputs = {v.name: _numpy_dtype(v) for v in graph.input}
        self.outputs = {v.name: _numpy_dtype(v) for v in graph.output}
        missing = sorted({node.op_type for node in graph.node} - OPERATORS.keys())
        if missing:
            raise BackendUnavailable(
                f"{path.name} has {', '.join(missing)}, which backend 'torch' does not run: bundles in int8 and fp8 "
                "run with 'onnxruntime', 'openvino' (int8), 'tensorrt' or 'tensorrt_rtx'"
            )
        self._numbers: dict[str, int | Ints] = {}
        self._buffer_names: dict[str, str] = {}
        for i, tensor in enumerate(graph.initializer):
            if tensor.data_type == TensorProto.INT64 and len(tensor.dims) < 2:
                values = numpy_helper.to_array(tensor)
                self._numbers[tensor.name] = tuple(values.tolist()) if values.ndim else int(values)
            else:
                # Not the tensor's own name, which may hold a dot.
                self.register_buffer(f"constant{i}", _tensor(tensor))
                self._buffer_names[tensor.name] = f"constant{i}"
        self._steps = _steps(graph)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the operators in the order of the graph.

        Args:
            inputs: in the order of the graph, on the device of the buffers.

        Returns:
            The graph's outputs, in its order.
        """
        values: dict[str, Value] = dict(zip(self.inputs, inputs, strict=True))
        for run, names, output, attributes, done in self._steps:
            read = [values[name] if name in values else self._constant(name) for name in names]
            values[output] = run(attributes, *read)
            for name in done:
                values.pop(name, None)
        found = [values[name] for name in self.outputs]
        return tuple(value for value in found if isinstance(value, Tensor))

    def _constant(self, name: str) -> Value:
        return self._numbers[name] if name in self._numbers else self.get_buffer(self._buffer_names[name])


Step = tuple[Operator, list[str], str, Attributes, list[str]]


def _steps(graph: onnx.GraphProto) -> list[Step]:
    """Operator, what it reads, what it makes, its attributes, and what nothing reads after it."""
    last = {name: i for i, node in enumerate(graph.node) for name in node.input}
    kept = {v.name for v in graph.output}
    steps = []
    for i, node in enumerate(graph.node):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        done = [name for name in dict.fromkeys(node.input) if last[name] == i and name not in kept]
        steps.append((OPERATORS[node.op_type], list(node.input), node.output[0], attributes, done))
    return steps


def _read(path: Path) -> onnx.GraphProto:
    try:
        model = onnx.load(path)
    except Exception as error:
        # protobuf's own, of the C++ or the Python implementation
        raise BundleError(f"{str(path)!r} cannot be read as an ONNX graph: {error}") from error
    if not model.graph.node:
        raise BundleError(f"{str(path)!r} is no ONNX graph: it has no operator")
    return model.graph


def _numpy_dtype(value: onnx.ValueInfoProto) -> DTypeLike:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _tensor(proto: onnx.TensorProto) -> Tensor:
    values = numpy_helper.to_array(proto)
    if proto.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
    tensor = torch.from_numpy(values.copy())
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    x = x.contiguous(memory_format=torch.channels_last)
    strides, dilations = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    return F.conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), attributes.get("group", 1))


def _max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    top, left, _, _ = attributes["pads"]
    return F.max_pool2d(x, tuple(attributes["kernel_shape"]), tuple(attributes["strides"]), (top, left))


def _gemm(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if attributes.get("transA", 0) or (attributes.get("alpha", 1.0), attributes.get("beta", 1.0)) != (1.0, 1.0):
        raise BackendUnavailable(f"a Gemm has {attributes}; wanted alpha and beta of 1, and no transA")
    return F.linear(x, weight if attributes.get("transB", 0) else weight.T, bias)


def _reshape(attributes: Attributes, x: Value, shape: Ints) -> Value:
    if not isinstance(x, Tensor):
        numbers = x if isinstance(x, tuple) else (x,)
        return numbers if shape else numbers[0]
    if not attributes.get("allowzero", 0):
        shape = tuple(x.shape[axis] if size == 0 else size for axis, size in enumerate(shape))
    return x.reshape(shape)


def _gather(attributes: Attributes, x: Value, indices: Value) -> Value:
    axis = attributes.get("axis", 0)
    if not isinstance(x, Tensor):
        numbers = x if isinstance(x, tuple) else (x,)
        return tuple(numbers[i] for i in indices) if isinstance(indices, tuple) else numbers[_number(indices)]
    return x.index_select(axis, indices) if isinstance(indices, Tensor) else x.select(axis, _number(indices))


def _slice(attributes: Attributes, x: Value, starts: Ints, ends: Ints, axes: Ints = (0,), steps: Ints = (1,)) -> Value:
    if not isinstance(x, Tensor):
        assert isinstance(x, tuple)
        return x[starts[0] : ends[0] : steps[0]]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=False):
        x = x[(*[slice(None)] * (axis % x.dim()), slice(start, end, step))]
    return x


def _concat(attributes: Attributes, *parts: Value) -> Value:
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors, attributes["axis"])
    return tuple(number for part in parts if isinstance(part, tuple) for number in part)


def _squeeze(attributes: Attributes, x: Value, axes: Ints = ()) -> Value:
    if not isinstance(x, Tensor):
        return _number(x)
    return x.squeeze(axes) if axes else x.squeeze()


def _unsqueeze(attributes: Attributes, x: Value, axes: Ints) -> Value:
    if not isinstance(x, Tensor):
        return (_number(x),)
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _mean(attributes: Attributes, x: Tensor, axes: Ints) -> Tensor:
    return x.mean(axes, bool(attributes.get("keepdims", 1)))


def _divide(attributes: Attributes, a: Value, b: Value) -> Value:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a / b
    return _number(a) // _number(b)


def _instance_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _number(value: Value) -> int:
    """Sizes are never negative, and never on the device."""
    if isinstance(value, tuple):
        [value] = value
    assert not isinstance(value, Tensor)
    return value


def _shape(attributes: Attributes, x: Tensor) -> Ints:
    return tuple(x.shape[attributes.get("start", 0) : attributes.get("end")])


def _permute(attributes: Attributes, x: Tensor) -> Tensor:
    order: Sequence[int] = attributes.get("perm", range(x.dim())[::-1])
    return x.permute(*order)


OPERATORS: dict[str, Operator] = {
    "Abs": lambda _, x: x.abs(),
    "Add": lambda _, a, b: a + b,
    "Cast": lambda attributes, x: x.to(_DTYPES[attributes["to"]]) if isinstance(x, Tensor) else x,
    "Concat": _concat,
    "Conv": _conv,
    "Cos": lambda _, x: x.cos(),
    "Div": _divide,
    "Gather": _gather,
    "Gemm": _gemm,
    "InstanceNormalization": _instance_norm,
    "Log": lambda _, x: x.log(),
    "MatMul": lambda _, a, b: a @ b,
    "MaxPool": _max_pool,
    "Mul": lambda _, a, b: a * b,
    "ReduceMean": _mean,
    "Relu": lambda _, x: x.relu(),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Sin": lambda _, x: x.sin(),
    "Slice": _slice,
    "Softmax": lambda attributes, x: x.softmax(attributes.get("axis", -1)),
    "Squeeze": _squeeze,
    "Sub": lambda _, a, b: a - b,
    "Transpose": _permute,
    "Unsqueeze": _unsqueeze,
}
"""(attributes, inputs) -> output, of each operator that export writes."""
