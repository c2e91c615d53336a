"""Does each exported graph compute what torch computes? ONNX Runtime against the model, from equal inputs.

The yardstick is the model as trained: norms not folded, weights not permuted. `rdn_engine.verify` is the other half:
the finished bundle on its golden frames, kernels included, on any machine, without torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.graphs import pad_cells
from rdn_engine.backends import load_backend
from rdn_engine.backends.graph import Graph
from rdn_engine.bundle.manifest import GRAPHS
from rdn_engine.errors import RDNError
from training.model.attached import AttachedRDN
from training.model.inference import advanced_rows, plane, to_input
from training.model.rdn import RDN
from training.model.relation import Advanced

GRAPH_TOLERANCE = 1e-4
"""Largest difference of an output, relative to its largest value. Float32 rounds at 6e-8, which the layers of a
ResNet-50 let grow to 1.4e-5 on the parity checkpoint (docs/parity.md): seven times that, for deeper networks. A wrong
eps, permutation or axis leaves more than 1e-2."""

BUNDLE_TOLERANCES = {
    "boxes": 1e-4,
    "objectness": 1e-4,
    "features": 1e-4,
    "logits": 2e-3,
    "deltas": 2e-3,
}
"""What a manifest asks of the runtime for each stage from the stored result of the stage before, in the units of
`rdn_engine.verify`: some ten times what the parity checkpoint shows, 9e-6 up to the features and 2e-4 behind the
geometry. For the detections see `export.golden.detection_tolerance`."""


@dataclass(frozen=True)
class Comparison:
    graph: str
    case: str
    output: str
    absolute: float
    """Largest |ONNX Runtime - torch|; infinite where a value is not finite or the shapes differ"""
    relative: float
    """The same over the largest |torch|; over 1 for objectness, a probability, which may be small everywhere"""

    @property
    def passed(self) -> bool:
        return self.relative <= GRAPH_TOLERANCE


@dataclass(frozen=True)
class _Case:
    role: str
    name: str
    feeds: dict[str, Tensor]
    wanted: dict[str, Tensor]


@torch.no_grad()
def compare_graphs(model: RDN, directory: Path, frames: NDArray[np.uint8], threads: int = 1) -> list[Comparison]:
    """Runs every graph on random inputs of several sizes and on what the model makes of frames.

    Args:
        model: on the CPU, in evaluation mode.
        directory: of the graphs.
        frames: uint8 [F, H, W, 3] RGB.
        threads: of ONNX Runtime.

    Returns:
        A row for each graph, case and output.

    Raises:
        RDNError: a graph has other inputs or outputs than the model wants.
    """
    backend = load_backend("onnxruntime", "cpu", threads)
    attached = isinstance(model, AttachedRDN)
    roles = [role for role in GRAPHS if role != "backbone" or not attached]
    graphs = {role: backend.load(directory / GRAPHS[role]) for role in roles}
    rows = []
    # What a detector makes of frames is no graph of torch's.
    for case in (*_random_cases(model), *(() if attached else _frame_cases(model, frames))):
        got = _run(graphs[case.role], case)
        rows += [compare(case.role, case.name, name, got[name], wanted.numpy()) for name, wanted in case.wanted.items()]
    return rows


def compare(graph: str, case: str, output: str, got: NDArray[np.generic], wanted: NDArray[np.generic]) -> Comparison:
    """One output of one graph against torch.

    Args:
        graph: its role.
        case: which inputs, in words.
        output: its name.
        got: of ONNX Runtime.
        wanted: of torch.

    Returns:
        The difference, infinite where shapes differ or a value is not finite.
    """
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return Comparison(graph, case, output, np.inf, np.inf)
    absolute = float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max(initial=0))
    scale = 1.0 if output == "objectness" else max(float(np.abs(wanted).max(initial=0)), 1e-30)
    return Comparison(graph, case, output, absolute, absolute / scale)


def _run(graph: Graph, case: _Case) -> dict[str, NDArray[np.generic]]:
    if set(graph.inputs) != set(case.feeds) or set(graph.outputs) != set(case.wanted):
        raise RDNError(
            f"graph {case.role} has inputs {graph.inputs} and outputs {graph.outputs}; this model wants "
            f"{tuple(case.feeds)} and {tuple(case.wanted)}"
        )
    return graph({name: np.ascontiguousarray(tensor.numpy()) for name, tensor in case.feeds.items()})


def _random_cases(model: RDN) -> Iterator[_Case]:
    config = model.config
    rng = torch.Generator().manual_seed(0)
    attached = isinstance(model, AttachedRDN)
    for batch, height, width in () if attached else ((1, 64, 96), (2, 75, 50), (1, 1, 33)):
        image = torch.rand(batch, 3, height, width, generator=rng) * 255
        image = (image - torch.tensor(config.input.mean)[:, None, None]) / torch.tensor(config.input.std)[:, None, None]
        yield _backbone_case(model, f"random {batch}x{height}x{width}", image)
    for rows, support in ((13, 5), (1, 1), (4, 4)):
        cells = () if attached else (config.roi.size, config.roi.size)
        shape = (rows, model.roi.channels, *cells)
        pooled = torch.rand(shape, generator=rng)
        yield _roi_head_case(model, f"random {rows}, {support} support", pooled, torch.arange(support).flip(0))
    for rows, supports, advanced in ((9, 14, 6), (1, 1, 1), (3, 20, 3)):
        features = torch.rand(max(rows, supports), config.relation.dim, generator=rng)
        corner = torch.rand(len(features), 2, generator=rng) * 200
        boxes = torch.cat([corner, corner + torch.rand(len(features), 2, generator=rng) * 100], 1)
        times = torch.randint(1, 19, (supports,), generator=rng).float()
        chosen = torch.arange(advanced) * (supports // advanced)
        name = f"random {rows}, {supports} support, {advanced} advanced"
        pool = features[:supports], boxes[:supports]
        yield _relation_case(model, name, (features[:rows], boxes[:rows]), pool, times, chosen)


def _frame_cases(model: RDN, frames: NDArray[np.uint8]) -> Iterator[_Case]:
    """What the stages hand to each other on the way of real frames, all frames in one window."""
    config, dials = model.config, model.config.dials
    k = dials.num_support
    boxes, objectness, features = [], [], []
    for t, frame in enumerate(frames):
        image = to_input(frame, config.input)[None]
        yield _backbone_case(model, f"frame {t}", image)
        logits, deltas, feature_map = model.encode_map(image)
        grid, size = plane(feature_map), plane(image)
        [(found, scores)] = model.propose(logits, deltas, grid, size, dials.num_reference)
        pooled, computed = _pooled(model, feature_map, found)
        yield _roi_head_case(model, f"frame {t}", pooled, torch.arange(min(len(found), k)))
        boxes.append(found)
        objectness.append(scores)
        features.append(computed)
    support = torch.cat([f[:k] for f in features]), torch.cat([b[:k] for b in boxes])
    chosen = advanced_rows([o[:k] for o in objectness], dials)
    times = torch.ones(len(support[0]))
    for t, reference in enumerate(zip(features, boxes, strict=True)):
        yield _relation_case(model, f"frame {t}", reference, support, times, chosen)


def _pooled(model: RDN, feature_map: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """What the RoI layer gets, [n, C, size, size], and the features it makes."""
    caught: list[Tensor] = []
    handle = model.roi.fc.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    features = model.roi_features(feature_map, [boxes])
    handle.remove()
    size = model.config.roi.size
    return caught[0].unflatten(1, (-1, size, size)), features


def _backbone_case(model: RDN, name: str, image: Tensor) -> _Case:
    objectness, deltas, feature_map = model.encode_map(image)
    wanted = {"objectness": objectness.sigmoid(), "deltas": deltas, "feature_map": feature_map.permute(0, 2, 3, 1)}
    return _Case("backbone", name, {"image": image}, wanted)


def _roi_head_case(model: RDN, name: str, pooled: Tensor, support: Tensor) -> _Case:
    features = model.roi.fc(pooled.flatten(1)).relu()
    feeds = {"pooled": pooled}
    if not isinstance(model, AttachedRDN):
        cells = pooled.permute(0, 2, 3, 1).flatten(1)
        feeds = {"pooled": pad_cells(cells, model.config.roi.size, model.roi.channels)}
    wanted = {"features": features}
    if model.config.relation.num_modules:
        keys, values, refine_query = model.relation.project(features[support])
        feeds["support"] = support
        wanted |= {"query": model.relation.first_query(features), "keys": keys, "values": values}
        if refine_query is not None:
            wanted["refine_query"] = refine_query
    return _Case("roi_head", name, feeds, wanted)


def _relation_case(
    model: RDN,
    name: str,
    reference: tuple[Tensor, Tensor],
    support: tuple[Tensor, Tensor],
    times: Tensor,
    chosen: Tensor,
) -> _Case:
    """reference and support: features [n, D], boxes [n, 4]; times [S] each support row counts; chosen [A] rows."""
    relation, r = model.relation, model.config.relation
    features, boxes = reference
    feeds = {"features": features}
    if not r.num_modules:
        return _Case(
            "relation", name, feeds, {"logits": relation.classify(features), "deltas": relation.regress(features)}
        )
    rows, support_boxes = support
    query = relation.first_query(features)
    keys, values, refine_query = relation.project(rows)
    feeds |= {"query": query, "boxes": boxes, "support_boxes": support_boxes, "keys": keys, "values": values}
    feeds["log_multiplicity"] = times.log()
    advanced = None
    if refine_query is not None:
        advanced = Advanced(support_boxes[chosen], rows[chosen], refine_query[chosen], times[chosen].log())
        feeds |= {
            "advanced_boxes": advanced.boxes,
            "advanced_features": advanced.features,
            "advanced_query": advanced.query,
            "advanced_log_multiplicity": times[chosen].log(),
        }
    out = relation.attend(features, query, boxes, keys, values, support_boxes, times.log(), advanced)
    wanted = {"logits": out.logits, "deltas": out.deltas}
    return _Case("relation", name, feeds, wanted if out.omega is None else {**wanted, "omega": out.omega})
