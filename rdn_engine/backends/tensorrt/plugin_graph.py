"""The relation graph of a bundle with one plugin (csrc/tensorrt) for each relation module, for full TensorRT.

Inputs and outputs are those of relation.onnx, in float32 in every precision; weights come from relation.npz.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import RDNConfig, RelationConfig
from rdn_engine.errors import BackendUnavailable, ConfigError
from rdn_engine.relation_order import run_relation

if TYPE_CHECKING:
    import onnx

LIBRARY = Path(__file__).resolve().parents[2] / "librdn_tensorrt.so"
"""Built where TENSORRT_ROOT is given."""
NAME, VERSION, DOMAIN = "RdnRelation", "1", "rdn_engine"
_OPSET, _IR_VERSION = 18, 10

Weights = Mapping[str, NDArray[Any]]


def relation_with_plugin(config: RDNConfig, weights: Weights) -> bytes:
    """Write the relation graph with each module a plugin.

    Args:
        config: of the model.
        weights: as in relation.npz.

    Returns:
        An ONNX file, the same for the same model.

    Raises:
        ConfigError: for a model without relation modules.
        BackendUnavailable: without onnx.
    """
    if not config.relation.num_modules:
        raise ConfigError("this model has no relation module; its relation graph has no use for the plugin")
    try:
        import onnx
    except ImportError as error:
        raise BackendUnavailable(f"the relation graph of plugins wants onnx ({error}); pip install onnx") from error
    graph = _Graph(config.relation, weights).build(config)
    opsets = [onnx.helper.make_opsetid("", _OPSET), onnx.helper.make_opsetid(DOMAIN, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString(deterministic=True))


class _Graph:
    """Steps of the relation stage whose arrays are the names of tensors."""

    def __init__(self, relation: RelationConfig, weights: Weights) -> None:
        import onnx

        self._onnx, self._relation, self._weights = onnx, relation, weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._pool = "support_boxes", self._node("Exp", "log_multiplicity")
        self._omega = ""

    def build(self, config: RDNConfig) -> onnx.GraphProto:
        logits, deltas = run_relation(self._relation, self, "features", "query")
        outputs = {"logits": logits, "deltas": deltas} | ({"omega": self._omega} if self._omega else {})
        for name, tensor in outputs.items():
            self._nodes.append(self._onnx.helper.make_node("Identity", [tensor], [name], name=name))
        return self._onnx.helper.make_graph(
            self._nodes,
            "rdn_engine_relation",
            _inputs(config.relation),
            _outputs(config),
            list(self._constants.values()),
        )

    def linear(self, name: str, x: str, *, relu: bool = False, bias: bool = True) -> str:
        inputs = [x, self._weight(f"{name}.weight"), *([self._weight(f"{name}.bias")] if bias else [])]
        out = self._node("Gemm", *inputs, transB=1)
        return self._node("Relu", out) if relu else out

    def attend(self, module: int, x: str, query: str, *, last: bool) -> str:
        out, *weight = self._relate(module, query, "boxes", self._cached(module), self._pool, omega=last)
        if weight:
            [self._omega] = weight
        return self._node("Add", x, out)

    def refine(self, module: int) -> str:
        [out] = self._relate(module, "advanced_query", "advanced_boxes", self._cached(module), self._pool)
        return self._node("Add", "advanced_features", out)

    def distil(self, module: int, x: str, query: str, *, keys: str, values: str) -> str:
        chosen = "advanced_boxes", self._node("Exp", "advanced_log_multiplicity")
        [out] = self._relate(module, query, "boxes", (keys, values), chosen)
        return self._node("Add", x, out)

    def _relate(
        self,
        module: int,
        query: str,
        boxes: str,
        keys_values: tuple[str, str],
        pool: tuple[str, str],
        *,
        omega: bool = False,
    ) -> list[str]:
        """pool: boxes and multiplicity of the supports. The module's output, and omega where it is wanted."""
        parts = ("geometry.weight", "geometry.bias", "value.bias")
        inputs = [query, boxes, *keys_values, *pool, *(self._weight(f"rel.{module}.{part}") for part in parts)]
        outputs = [f"rel.{module}.out", *([f"rel.{module}.omega"] if omega else [])]
        attributes: dict[str, Any] = {"heads": self._relation.heads, "omega": int(omega)}
        attributes |= {"plugin_version": VERSION, "plugin_namespace": ""}
        node = self._onnx.helper.make_node(NAME, inputs, outputs, f"rel.{module}", domain=DOMAIN, **attributes)
        self._nodes.append(node)
        return outputs

    def _cached(self, module: int) -> tuple[str, str]:
        index = self._constant(f"module.{module}", np.array(module, np.int64))
        return self._node("Gather", "keys", index, axis=0), self._node("Gather", "values", index, axis=0)

    def _weight(self, name: str) -> str:
        return self._constant(name, np.ascontiguousarray(self._weights[name], np.float32))

    def _constant(self, name: str, array: NDArray[Any]) -> str:
        self._constants.setdefault(name, self._onnx.numpy_helper.from_array(array, name))
        return name

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}.{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


def _inputs(r: RelationConfig) -> list[onnx.ValueInfoProto]:
    shapes: dict[str, list[int | str]] = {
        "features": ["rows", r.dim],
        "query": ["rows", r.dim],
        "boxes": ["rows", 4],
        "support_boxes": ["supports", 4],
        "keys": [r.num_cached, "supports", r.dim],
        "values": [r.num_cached, "supports", r.dim],
        "log_multiplicity": ["supports"],
    }
    if r.advanced:
        shapes |= {
            "advanced_boxes": ["advanced", 4],
            "advanced_features": ["advanced", r.dim],
            "advanced_query": ["advanced", r.dim],
            "advanced_log_multiplicity": ["advanced"],
        }
    return _values(shapes)


def _outputs(config: RDNConfig) -> list[onnx.ValueInfoProto]:
    shapes: dict[str, list[int | str]] = {
        "logits": ["rows", config.num_logits],
        "deltas": ["rows", 4 * config.num_logits],
    }
    if config.relation.num_basic:
        shapes["omega"] = ["rows", "supports"]
    return _values(shapes)


def _values(shapes: Mapping[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
    import onnx

    return [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in shapes.items()]
