"""The three ONNX graphs of a bundle, and the relation weights of the fused executor.

Graphs hold standard operators only, float32 throughout. Between them stand the compiled kernels: proposals, NMS and
RoI pooling, whose operators no two engines agree on.

    backbone   image [batch, 3, height, width] -> objectness [batch, H*W*A], deltas [batch, H*W*A, 4],
               feature_map [batch, H, W, C]
    roi_head   pooled [rows, W] (as cpu.roi_pool), support [support_rows] -> features [rows, D], query [rows, D],
               keys and values [P, support_rows, D], refine_query [support_rows, D]
    relation   features and query [rows, D], boxes [rows, 4], support_boxes [supports, 4], keys and values
               [P, supports, D], log_multiplicity [supports], advanced_boxes [advanced, 4], advanced_features and
               advanced_query [advanced, D], advanced_log_multiplicity [advanced]
               -> logits [rows, C+1], deltas [rows, 4(C+1)], omega [rows, supports]

What a configuration does not use is not in its graphs.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torchvision.ops import FrozenBatchNorm2d

from rdn_engine.bundle.contract import fused_shapes
from rdn_engine.bundle.manifest import GRAPHS, WEIGHTS
from rdn_engine.config import RDNConfig
from rdn_engine.errors import CheckpointError
from rdn_engine.kernels.cpu.boxes import pooled_width
from training.model.attached import AttachedRDN
from training.model.backbone import Backbone
from training.model.rdn import RDN
from training.model.relation import Advanced

OPSET = 18

Axes = dict[int, str]


@dataclass(frozen=True)
class Input:
    example: Tensor
    axes: Axes
    """axis -> name of its changing size"""


@dataclass(frozen=True)
class Graph:
    """One graph to export: a module whose forward takes `inputs` and returns `outputs`, both in this order."""

    module: nn.Module
    inputs: dict[str, Input]
    outputs: dict[str, Axes]


class BackboneGraph(nn.Module):
    def __init__(self, model: RDN) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        fold_norms(self.model.backbone)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        objectness, deltas, feature_map = self.model.encode_map(image)
        return objectness.sigmoid(), deltas, feature_map.permute(0, 2, 3, 1)


def pad_cells(rows: Tensor, size: int, channels: int) -> Tensor:
    """Pooled cells, or weights for them, at the width that `cpu.roi_pool` writes.

    Args:
        rows: [n, size * size * C].
        size: of a side of the pooled grid, in cells.
        channels: C.

    Returns:
        [n, W] with zeros behind, W = `cpu.pooled_width(size, channels)`.
    """
    return nn.functional.pad(rows, (0, pooled_width(size, channels) - rows.shape[1]))


class RoIHeadGraph(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, model: RDN) -> None:
        super().__init__()
        size, weight = model.config.roi.size, model.roi.fc.weight.detach()
        if not isinstance(model, AttachedRDN):
            # Pooled cells arrive channels-last, the trained layer expects (C, size, size).
            weight = weight.unflatten(1, (-1, size, size)).permute(0, 2, 3, 1).flatten(1)
            weight = pad_cells(weight, size, model.roi.channels)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", model.roi.fc.bias.detach())
        self.relation = model.relation

    def forward(self, pooled: Tensor, support: Tensor | None = None) -> tuple[Tensor, ...]:
        features = nn.functional.linear(pooled, self.weight, self.bias).relu()
        if support is None:
            return (features,)
        keys, values, refine_query = self.relation.project(features.index_select(0, support))
        found = (features, self.relation.first_query(features), keys, values)
        return found if refine_query is None else (*found, refine_query)


class RelationGraph(nn.Module):
    def __init__(self, model: RDN) -> None:
        super().__init__()
        self.relation = model.relation

    def forward(self, features: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        if not rest:
            return self.relation.classify(features), self.relation.regress(features)
        query, boxes, support_boxes, keys, values, log_multiplicity, *chosen = rest
        advanced = Advanced(*chosen) if chosen else None
        out = self.relation.attend(features, query, boxes, keys, values, support_boxes, log_multiplicity, advanced)
        return (out.logits, out.deltas) if out.omega is None else (out.logits, out.deltas, out.omega)


def describe(model: RDN) -> dict[str, Graph]:
    """The graphs of a model, with example inputs of odd sizes (a size of 1 would be taken for a constant).

    Args:
        model: in evaluation mode.

    Returns:
        Role (backbone, roi_head, relation) -> graph.
    """
    config = model.config
    behind = {"roi_head": _roi_head(model, config), "relation": _relation(model, config)}
    return behind if isinstance(model, AttachedRDN) else {"backbone": _backbone(model), **behind}


def _backbone(model: RDN) -> Graph:
    image = Input(torch.zeros(2, 3, 96, 128), {0: "batch", 2: "height", 3: "width"})
    anchors = {0: "batch", 1: "anchors"}
    outputs = {
        "objectness": anchors,
        "deltas": anchors,
        "feature_map": {0: "batch", 1: "map_height", 2: "map_width"},
    }
    return Graph(BackboneGraph(model), {"image": image}, outputs)


def _roi_head(model: RDN, config: RDNConfig) -> Graph:
    width = model.roi.fc.in_features
    if not isinstance(model, AttachedRDN):
        width = pooled_width(config.roi.size, model.roi.channels)
    inputs = {"pooled": Input(torch.zeros(7, width), {0: "rows"})}
    outputs: dict[str, Axes] = {"features": {0: "rows"}}
    if config.relation.num_modules:
        inputs["support"] = Input(torch.arange(5), {0: "support_rows"})
        outputs |= {"query": {0: "rows"}, "keys": {1: "support_rows"}, "values": {1: "support_rows"}}
    if config.relation.advanced:
        outputs["refine_query"] = {0: "support_rows"}
    return Graph(RoIHeadGraph(model), inputs, outputs)


def _relation(model: RDN, config: RDNConfig) -> Graph:
    r, n, s, a = config.relation, 7, 11, 5
    rows, supports, advanced = {0: "rows"}, {0: "supports"}, {0: "advanced"}
    inputs = {"features": Input(torch.zeros(n, r.dim), rows)}
    if r.num_modules:
        inputs |= {
            "query": Input(torch.zeros(n, r.dim), rows),
            "boxes": Input(torch.zeros(n, 4), rows),
            "support_boxes": Input(torch.zeros(s, 4), supports),
            "keys": Input(torch.zeros(r.num_cached, s, r.dim), {1: "supports"}),
            "values": Input(torch.zeros(r.num_cached, s, r.dim), {1: "supports"}),
            "log_multiplicity": Input(torch.zeros(s), supports),
        }
    if r.advanced:
        inputs |= {
            "advanced_boxes": Input(torch.zeros(a, 4), advanced),
            "advanced_features": Input(torch.zeros(a, r.dim), advanced),
            "advanced_query": Input(torch.zeros(a, r.dim), advanced),
            "advanced_log_multiplicity": Input(torch.zeros(a), advanced),
        }
    outputs = {"logits": rows, "deltas": rows}
    if r.num_basic:
        outputs["omega"] = {0: "rows", 1: "supports"}
    return Graph(RelationGraph(model), inputs, outputs)


def export_graphs(model: RDN, directory: Path, done: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Writes the graphs and the relation weights of a model.

    Args:
        model: on the CPU, in evaluation mode; nothing in it changes.
        directory: of the bundle.
        done: is called with the role of each graph after it.

    Returns:
        Role -> how many float32 constants the graph holds.

    Raises:
        CheckpointError: a norm cannot be folded.
    """
    parameters = {}
    for role, graph in describe(model.eval()).items():
        parameters[role] = export_graph(graph, role, directory / GRAPHS[role])
        done(role)
    state = model.relation.state_dict()
    np.savez(directory / WEIGHTS, **{name: state[name].numpy() for name in fused_shapes(model.config)})
    done("weights")
    return parameters


def export_graph(graph: Graph, role: str, path: Path) -> int:
    """Writes one graph.

    Args:
        graph: to export.
        role: of it, for its names.
        path: of the ONNX file.

    Returns:
        How many float32 constants it holds.
    """
    dims = {name: Dim(name) for i in graph.inputs.values() for name in i.axes.values()}
    shapes: list[Any] = [{axis: dims[name] for axis, name in i.axes.items()} for i in graph.inputs.values()]
    kinds = [p.kind for p in inspect.signature(graph.module.forward).parameters.values()]
    if len(shapes) > 1 and inspect.Parameter.VAR_POSITIONAL in kinds:  # it takes all that follow as one
        shapes = [shapes[0], tuple(shapes[1:])]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph.module.eval(),
            tuple(i.example for i in graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _describe(proto, graph, role)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return sum(int(np.prod(t.dims)) for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


def fold_norms(backbone: Backbone) -> None:
    """Puts every batch norm, frozen or not, into the convolution before it; a group norm stays.

    Args:
        backbone: which is changed in place; the products are computed in float64.

    Raises:
        CheckpointError: a variance has a root without a finite inverse.
    """
    for name, module in list(backbone.named_modules()):
        pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3)] if hasattr(module, "bn1") else []
        if name.endswith("downsample"):
            pairs = [("0", "1")]
        for conv_name, norm_name in pairs:
            norm = getattr(module, norm_name, None)
            if isinstance(norm, (FrozenBatchNorm2d, nn.BatchNorm2d)):
                fold_norm(getattr(module, conv_name), norm, f"backbone.{name}.{norm_name}")
                setattr(module, norm_name, nn.Identity())


def fold_norm(conv: nn.Conv2d, norm: FrozenBatchNorm2d | nn.BatchNorm2d, where: str) -> None:
    """Put a batch norm into the convolution before it.

    Args:
        conv: which is changed in place; the products are computed in float64.
        norm: with its stored statistics.
        where: its name, for messages.

    Raises:
        CheckpointError: a variance has a root without a finite inverse.
    """
    state: dict[str, Tensor] = norm.state_dict()
    weight, bias, mean, var = (state[name].double() for name in ("weight", "bias", "running_mean", "running_var"))
    scale = weight / (var + norm.eps).sqrt()
    if not scale.isfinite().all():
        raise CheckpointError(
            f"{where}: running_var + {norm.eps} is as low as {(var + norm.eps).min():g}; wanted above 0"
        )
    folded = conv.weight.detach().double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(folded.float(), requires_grad=False)
    conv.bias = nn.Parameter((bias - mean * scale).float(), requires_grad=False)


def _describe(proto: onnx.ModelProto, graph: Graph, role: str) -> None:
    """Names for the changing axes of the outputs, and a line about the graph; without the exporter's traces."""
    for node in proto.graph.node:
        # They quote this machine's files, and differ from one build to the next.
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
    for value in proto.graph.output:
        for axis, name in graph.outputs[value.name].items():
            proto_axis = value.type.tensor_type.shape.dim[axis]
            proto_axis.Clear()
            proto_axis.dim_param = name
    proto.graph.name = f"rdn_engine_{role}"
    proto.doc_string = f"{role} graph of a Relation Distillation Network; inputs and outputs as in export/graphs.py"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter remarks on axes that share a name, which is what they are meant to do."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
