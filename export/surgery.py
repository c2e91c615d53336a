"""A detector's ONNX graph, cut at named tensors and given new outputs behind them. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rdn_engine.errors import AttachError

Shape = tuple[int | None, ...]

LOWEST_OPSET = 11
"""Of the operators that are added here."""


_WEIGHTS_ALONE = 4  # the first IR version whose initializers need not be inputs


class Surgery:
    """One model that is being changed. Tensors are named by their names in the graph."""

    def __init__(self, path: Path, size: tuple[int, int] | None) -> None:
        """Read a detector.

        Args:
            path: an ONNX file.
            size: (height, width) of its images, pixels; None takes what the file says.

        Raises:
            AttachError: for a file that is no detector of images, or whose size is free and not given, or another.
        """
        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except (OSError, DecodeError, onnx.checker.ValidationError) as error:
            raise AttachError(f"{path} cannot be read as an ONNX model: {error}") from error
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if self.opset < LOWEST_OPSET:
            raise AttachError(f"{path.name} has opset {self.opset}; wanted {LOWEST_OPSET} or more: export it anew")
        self.name, self._model = path.name, model
        self._initializers = {one.name: one for one in model.graph.initializer}
        self.image = self._image_input()
        self.size = self._fix_size(size)
        self.model = onnx.shape_inference.infer_shapes(model)
        graph = self.model.graph
        self._shapes = {v.name: _shape(v) for v in (*graph.input, *graph.output, *graph.value_info)}
        self._types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
        self._maker = {name: node for node in graph.node for name in node.output}
        self._count = 0

    def _image_input(self) -> str:
        found = [v for v in self._model.graph.input if v.name not in self._initializers]
        images = [v for v in found if len(_shape(v)) == 4]
        got = ", ".join(f"{v.name} {words(_shape(v))}" for v in found)
        if len(images) != 1 or _shape(images[0])[1] not in (3, None):
            raise AttachError(f"{self.name} has inputs {got}; wanted one image [batch, 3, height, width]")
        if images[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(images[0].type.tensor_type.elem_type)
            raise AttachError(f"{self.name} reads {images[0].name} as {kind}; wanted FLOAT: export it in float32")
        return str(images[0].name)

    def _fix_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Write the size into the input, so that shapes are known behind it."""
        value = next(v for v in self._model.graph.input if v.name == self.image)
        said = _shape(value)[2:]
        for axis, name in enumerate(("height", "width")):
            given = None if size is None else size[axis]
            if said[axis] is None and given is None:
                raise AttachError(f"{self.name} takes any {name}; wanted --size HEIGHT WIDTH, which one it shall be")
            if said[axis] is not None and given is not None and said[axis] != given:
                raise AttachError(f"{self.name} takes images of {name} {said[axis]} only; --size says {given}")
            if said[axis] is None and given is not None:
                value.type.tensor_type.shape.dim[2 + axis].dim_value = given
                # What the exporter noted of shapes behind it speaks of a free size.
                del self._model.graph.value_info[:]
        tall, wide = _shape(value)[2:]
        assert tall is not None
        assert wide is not None
        return tall, wide

    @property
    def outputs(self) -> list[str]:
        """Names of the model's own outputs."""
        return [v.name for v in self.model.graph.output]

    @property
    def parameters(self) -> int:
        """How many numbers its initializers hold."""
        return sum(int(np.prod(one.dims)) for one in self._initializers.values())

    def shape(self, name: str, what: str) -> Shape:
        """Lengths of the axes of a tensor, None for one that changes.

        Args:
            name: of the tensor.
            what: it is for, in a message.

        Raises:
            AttachError: for a tensor that is not in the graph, that is not float32 or whole numbers, or of no known
                rank.
        """
        if name not in self._maker:
            near = difflib.get_close_matches(name, self._maker, 5, 0.6)
            last = [one for output in self.outputs for one in self._maker[output].input if one in self._maker]
            raise AttachError(
                f"{self.name} has no tensor {name!r} for the {what}; its outputs are {self.outputs}, made of {last}"
                f"{f', and names like this one are {near}' if near else ''}: name another, or export the detector with "
                "this one as an output"
            )
        if name not in self._shapes:
            raise AttachError(
                f"the shape of {name!r} is not known for the {what}; simplify the model, or export it anew"
            )
        if self._types[name] not in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32):
            kind = TensorProto.DataType.Name(self._types[name])
            raise AttachError(f"{name!r} is {kind} for the {what}; wanted FLOAT: export the detector in float32")
        return self._shapes[name]

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that a tensor comes from; None for inputs and weights."""
        return self._maker.get(name)

    def readers(self, fragment: str) -> list[onnx.NodeProto]:
        """The nodes that read a weight whose name has this in it, in the order of the graph."""
        return [node for node in self.model.graph.node for name in node.input[1:2] if fragment in name]

    def ancestors(self, names: Sequence[str]) -> set[str]:
        """Tensors that these are made of, themselves included."""
        waiting, found = list(names), set()
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            if name in self._maker:
                waiting += _inputs(self._maker[name])
        return found

    def op(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node.

        Args:
            kind: an operator with one output.
            inputs: names of tensors.
            attributes: of the operator.

        Returns:
            The name of its output.
        """
        self._count += 1
        name = f"attached.{self._count}"
        node = helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self.model.graph.node.append(node)
        self._maker[name] = node
        return name

    def know(self, name: str, shape: Shape) -> None:
        """Say what shape a float32 tensor has that was added.

        Args:
            name: of the tensor.
            shape: lengths of its axes, None for one that changes.
        """
        self._shapes[name], self._types[name] = shape, TensorProto.FLOAT

    def constant(self, array: NDArray[Any] | Sequence[int]) -> str:
        """Add an initializer.

        Args:
            array: float32, or whole numbers.

        Returns:
            Its name.
        """
        self._count += 1
        name = f"attached.{self._count}"
        values = array if isinstance(array, np.ndarray) else np.asarray(array, np.int64)
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def reshape(self, name: str, shape: Sequence[int]) -> str:
        """A tensor in another shape; 0 keeps an axis, -1 takes what is left."""
        return self.op("Reshape", [name, self.constant(shape)])

    def part(self, name: str, start: int, stop: int) -> str:
        """Columns start..stop of the last axis of a tensor."""
        return self.op("Slice", [name, self.constant([start]), self.constant([stop]), self.constant([-1])])

    def finish(self, outputs: Mapping[str, tuple[str, int]]) -> onnx.ModelProto:
        """The model with one input `image` and these outputs; what they do not need is left out.

        Args:
            outputs: name -> tensor and its rank; all float32.

        Returns:
            A checked model.
        """
        needed = self.ancestors([tensor for tensor, _ in outputs.values()])
        other = sorted(v.name for v in self.model.graph.input
                       if v.name in needed - {self.image} and v.name not in self._initializers)  # fmt: skip
        if other:
            raise AttachError(f"{self.name} makes its boxes of {other} too; wanted tensors that need the image alone")
        graph = self.model.graph
        nodes = [node for node in graph.node if needed & set(node.output)]
        weights = [one for one in graph.initializer if one.name in needed]
        # The detector's own tensors may have the names of the contract.
        names = {name: f"detector.{name}" for name in (*outputs, "image")} | {self.image: "image"}
        _rename(nodes, names)
        for one in weights:
            one.name = names.get(one.name, one.name)
        ends = [helper.make_node("Identity", [names.get(tensor, tensor)], [name], name=f"attached.{name}")
                for name, (tensor, _) in outputs.items()]  # fmt: skip
        made = helper.make_graph(
            [*nodes, *ends],
            graph.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self._batch_shape())],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
                for name, (_, rank) in outputs.items()
            ],
            weights,
        )
        model = helper.make_model(
            made, opset_imports=self.model.opset_import, ir_version=max(self.model.ir_version, _WEIGHTS_ALONE)
        )
        onnx.checker.check_model(model)
        return model

    def _batch_shape(self) -> list[int | str]:
        batch = self._shapes[self.image][0]
        return ["batch" if batch is None else batch, 3, *self.size]


def _inputs(node: onnx.NodeProto) -> list[str]:
    """What a node reads, its branches and loop bodies too."""
    inner = [one for attribute in node.attribute for one in attribute.g.node]
    return [*node.input, *(name for one in inner for name in _inputs(one))]


def _rename(nodes: Sequence[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Give tensors other names, in branches and loop bodies too."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            _rename(attribute.g.node, names)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim)


def words(shape: Shape) -> str:
    """A shape for a message.

    Args:
        shape: None for an axis of any length.
    """
    return f"[{', '.join('any' if side is None else str(side) for side in shape)}]"
