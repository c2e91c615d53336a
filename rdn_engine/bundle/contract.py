"""What a configuration wants of a bundle: the graphs' names and the arrays of relation.npz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import RDNConfig
from rdn_engine.errors import BundleError


def fused_shapes(config: RDNConfig) -> dict[str, tuple[int, ...]]:
    """Every array the fused executor reads, and none that it does not: the content of `relation.npz`.

    The query of the first module, and keys and values of the cached ones, are not among them: they come from the
    encoder.

    Args:
        config: of the model.

    Returns:
        Name -> shape: `X.weight` is [outputs, inputs], `X.bias` [outputs].
    """
    if config.cosine_score:
        return _cosine_shapes(config)
    r = config.relation
    linear: dict[str, tuple[int, int]] = {
        "classify": (config.num_logits, r.dim),
        "regress": (4 * config.num_logits, r.dim),
    }
    # Queries that are made of what an earlier module put out.
    asking = list(range(1, r.num_basic)) + ([r.num_basic + 1] if r.advanced and r.num_basic else [])
    linear.update({f"rel.{i}.query": (r.dim, r.dim) for i in asking})
    linear.update({f"rel.{i}.geometry": (r.heads, 64) for i in range(r.num_modules)})
    linear.update({f"basic_fc.{i}": (r.dim, r.dim) for i in range(r.num_basic - 1)})
    if r.advanced and r.advanced_fc:
        linear["advanced_fc"] = (r.dim, r.dim)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in linear.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]
    shapes.update({f"rel.{i}.value.bias": (r.dim,) for i in range(r.num_modules)})
    if r.advanced:
        # The distillation's support is what the refinement put out; the bias of its keys has no effect.
        shapes.update({f"rel.{r.num_basic + 1}.{part}.weight": (r.dim, r.dim) for part in ("key", "value")})
    return shapes


def _cosine_shapes(config: RDNConfig) -> dict[str, tuple[int, ...]]:
    dim, classes = config.relation.dim, len(config.class_names)
    shapes: dict[str, tuple[int, ...]] = {f"qkv_{branch}.weight": (3 * dim, dim) for branch in ("cls", "reg")}
    for name, outputs, inputs in (
        ("linear1", 2 * dim, 2 * dim),
        ("linear2", 4 * dim, 4 * dim),
        ("classify", classes, 4 * dim),
    ):
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return shapes


def relation_arrays(config: RDNConfig, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """The arrays that the fused executor reads, checked against the configuration.

    Args:
        config: of the model.
        weights: `relation.npz`, by the names of the torch module; others than those of `fused_shapes` are ignored.

    Returns:
        name -> float32, contiguous, in the order of `fused_shapes`.

    Raises:
        BundleError: one is missing or has another shape.
    """
    arrays = {}
    for name, shape in fused_shapes(config).items():
        array = weights.get(name)
        got = None if array is None else array.shape
        if array is None or got != shape:
            raise BundleError(f"relation weight {name} has shape {got}; the model's configuration wants {shape}")
        arrays[name] = np.ascontiguousarray(array, np.float32)
    return arrays


class _Named(Protocol):
    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...


def require_graphs(config: RDNConfig, backbone: _Named, roi_head: _Named) -> None:
    """Check the names of what goes into the encoder's graphs and comes out of them.

    Args:
        config: of the model.
        backbone, roi_head: have names of `inputs`, all of which are fed, and of `outputs`, which may be more.

    Raises:
        BundleError: for names that are not those of the configuration.
    """
    _require(backbone, "backbone", ["image"], ["objectness", "deltas", "feature_map"])
    require_roi_head(config, roi_head)


def require_encoder(config: RDNConfig, encoder: _Named) -> None:
    """Check the names of what goes into the graph of an attached detector and comes out of it.

    Args:
        config: of the model.
        encoder: has names of `inputs`, all of which are fed, and of `outputs`, which may be more.

    Raises:
        BundleError: for names that are not those of the configuration.
    """
    wanted = ["boxes", "class_scores"]
    if config.attached is not None and config.attached.relations:
        wanted.append("features" if config.attached.map_stride is None else "feature_map")
    if config.attached is not None and config.attached.objectness:
        wanted += ["objectness", "features_reg"]
    _require(encoder, "encoder", ["image"], wanted)


def require_roi_head(config: RDNConfig, roi_head: _Named) -> None:
    """Check the names of what goes into roi_head and comes out of it.

    Args:
        config: of the model.
        roi_head: as `require_graphs` has it.

    Raises:
        BundleError: for names that are not those of the configuration.
    """
    relation = config.relation
    inputs = ["pooled", "support"] if relation.num_modules else ["pooled"]
    wanted = ["features"]
    if relation.num_modules:
        wanted += ["query", "keys", "values"]
    if relation.advanced:
        wanted += ["refine_query"]
    _require(roi_head, "roi_head", inputs, wanted)


def _require(graph: _Named, role: str, inputs: list[str], outputs: list[str]) -> None:
    if set(graph.inputs) != set(inputs):
        raise BundleError(f"graph {role} has inputs {list(graph.inputs)}; the model's configuration wants {inputs}")
    if not set(outputs) <= set(graph.outputs):
        raise BundleError(f"graph {role} has outputs {list(graph.outputs)}; the model's configuration wants {outputs}")
