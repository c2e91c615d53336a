"""A small detector in numpy, whole: the same graphs and weights on the CPU and on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rdn_engine.backends import load_backend
from rdn_engine.backends.graph import TensorSpec
from rdn_engine.config import DetectionConfig, Dials, RDNConfig, RelationConfig, RoIConfig, RPNConfig
from rdn_engine.detector import Detector
from rdn_engine.device.batch import DeviceStreamBatch
from rdn_engine.device.encoder import DeviceGraphs
from rdn_engine.device.model import DeviceModel
from rdn_engine.device.relation import DevicePrecision, DeviceRelation
from rdn_engine.device.runtime import DeviceRuntime
from rdn_engine.device.stream import DeviceStream
from rdn_engine.host.encoder import Encoder
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels.arithmetic import ceil_div
from rdn_engine.kernels.cpu.boxes import pooled_width
from rdn_engine.kernels.cuda.view import View
from rdn_engine.results import Detections
from tests.emulated_gpu import Elsewhere, EmulatedGpu, EmulatedGraph
from tests.fakes import FakeGraph, relation_weights

DIALS = Dials(window=1, num_support=3, num_reference=6, advanced_ratio=0.67, score_threshold=0.05)
BASIC = RelationConfig(32, 2, num_basic=1, advanced=False)
AT_ONCE = replace(DIALS, look_ahead=0)
STRIDE, CHANNELS, BINS = 16, 4, 2
KINDS = {"support": np.int64}


def small_config(relation: RelationConfig | None = None, dials: Dials = DIALS) -> RDNConfig:
    """Two classes; frames of 48 x 64 become 36 x 48; 2 anchors a cell, two heads of 16 channels."""
    return RDNConfig(
        class_names=("cat", "dog"),
        input=InputConfig(36, 64, mean=(110.0, 120.0, 125.0), std=(60.0, 61.0, 62.0)),
        rpn=RPNConfig(anchor_sizes=(12, 24), anchor_ratios=(1.0,), pre_nms_top_n=20),
        roi=RoIConfig(size=BINS, reduce_channels=CHANNELS),
        relation=relation or RelationConfig(dim=32, heads=2),
        detection=DetectionConfig(max_detections=7),
        dials=dials,
    )


def frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """A scene that drifts, so that frames differ and have something in common."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1 + count, 3)).astype(np.uint8)
    large = scene.repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 20, (count, height, width, 3)).astype(np.uint8)
    return [large[:height, 3 * t : 3 * t + width] // 2 + noise[t] for t in range(count)]


@dataclass(frozen=True)
class Model:
    config: RDNConfig
    weights: dict[str, np.ndarray]
    backbone: FakeGraph
    roi_head: FakeGraph

    def on_cpu(self) -> Detector:
        encoder = Encoder(self.config, self.backbone, self.roi_head, 1)
        relation = FusedRelation(self.config, self.weights, 1)
        return Detector(HostRuntime(HostModel(self.config, encoder, relation, 1)))

    def on(
        self, gpu: Any, precision: DevicePrecision = "float32", *, capturable: bool = True
    ) -> Detector[DeviceStream, DeviceStreamBatch]:
        if isinstance(gpu, EmulatedGpu):
            loaded: list[Any] = [
                EmulatedGraph(g, gpu, KINDS, capturable=capturable) for g in (self.backbone, self.roi_head)
            ]
        else:
            loaded = [ThroughHost(g) for g in (self.backbone, self.roi_head)]
        relation = DeviceRelation(gpu, self.config, self.weights, precision)
        return Detector(DeviceRuntime(DeviceModel(gpu, self.config, DeviceGraphs(*loaded), relation), 1))


def small_model(config: RDNConfig, seed: int = 0, dark_below: float = 0.0, in_the_dark: int = 1) -> Model:
    """Random weights. Frames darker than dark_below, in grey levels, have in_the_dark proposals, 1 or 0."""
    rng = np.random.default_rng(seed)
    r, anchors = config.relation, config.rpn.num_anchors
    weights = relation_weights(config, seed)
    maps = {
        name: rng.normal(0, 1, (12, width)).astype(np.float32)
        for name, width in (("objectness", anchors), ("deltas", 4 * anchors), ("feature_map", CHANNELS))
    }
    project = rng.normal(0, 0.2, (pooled_width(BINS, CHANNELS), r.dim)).astype(np.float32)

    def backbone(image: np.ndarray) -> dict[str, np.ndarray]:
        batch, _, height, width = image.shape
        rows, columns = ceil_div(height, STRIDE), ceil_div(width, STRIDE)
        padded = np.zeros((batch, 3, rows * STRIDE, columns * STRIDE), np.float32)
        padded[:, :, :height, :width] = image
        half = STRIDE // 2
        cells = padded.reshape(batch, 3, rows, 2, half, columns, 2, half).mean((4, 7))  # four parts of each cell
        cells = cells.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows, columns, 12)
        found = {name: cells @ weight for name, weight in maps.items()}
        deltas = 0.4 * found["deltas"].reshape(batch, -1, 4)
        objectness = 1 / (1 + np.exp(-found["objectness"].reshape(batch, -1)))
        dark = image.reshape(batch, -1).mean(1) < (dark_below - 118) / 61
        deltas[dark, :, :2], deltas[dark, :, 2:] = 0, 3  # all of them the whole frame: one is left
        if not in_the_dark:
            objectness[dark] = np.nan
        return {
            "objectness": objectness,
            "deltas": deltas,
            "feature_map": np.ascontiguousarray(found["feature_map"]),
        }

    def roi_head(pooled: np.ndarray, support: np.ndarray | None = None) -> dict[str, np.ndarray]:
        features = np.maximum(pooled @ project, 0)
        if support is None:
            return {"features": features}
        kept, first = features[support], 0 if r.num_basic else 1
        found = {"features": features, "query": _linear(weights, f"rel.{first}.query", features)}
        for part in ("key", "value"):
            projected = [kept @ weights[f"rel.{i}.{part}.weight"].T for i in range(r.num_cached)]
            found[f"{part}s"] = np.stack(projected)
        if r.advanced:
            found["refine_query"] = _linear(weights, f"rel.{r.num_basic}.query", kept)
        return found

    inputs = ("pooled", "support") if r.num_modules else ("pooled",)
    outputs: tuple[str, ...] = ("features",)
    if r.num_modules:
        outputs += ("query", "keys", "values") + (("refine_query",) if r.advanced else ())
    first = FakeGraph(("image",), ("objectness", "deltas", "feature_map"), backbone)
    return Model(config, weights, first, FakeGraph(inputs, outputs, roi_head))


def basic_model() -> Model:
    """One basic module, results at once: quick."""
    return small_model(small_config(BASIC, AT_ONCE))


def device_array(gpu: Any, array: np.ndarray) -> Any:
    """An array that some other library has put on the device."""
    return Elsewhere(gpu.put(array)) if isinstance(gpu, EmulatedGpu) else gpu.put(array)


def _linear(weights: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return found


class BackendOf:
    """ONNX Runtime's graphs of the CPU, on a device."""

    name = "onnxruntime"

    def __init__(self, gpu: Any) -> None:
        self._gpu, self._backend = gpu, load_backend("onnxruntime", "cpu", 1)

    def load(self, path: Path) -> Any:
        return self._backend.load(path)

    def load_device(self, path: Path) -> Any:
        graph = self.load(path)
        return EmulatedGraph(graph, self._gpu, KINDS) if isinstance(self._gpu, EmulatedGpu) else ThroughHost(graph)


class ThroughHost:
    """A graph of the CPU for a real GPU: waits and copies, so it cannot be captured."""

    def __init__(self, graph: Any) -> None:
        self.inputs, self.outputs, self._graph = graph.inputs, graph.outputs, graph

    def bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        specs = {name: TensorSpec(tuple(s), np.dtype(KINDS.get(name, np.float32))) for name, s in shapes.items()}
        return BoundThroughHost(self._graph, specs)


class BoundThroughHost:
    capturable = False

    def __init__(self, graph: Any, specs: dict[str, TensorSpec]) -> None:
        self._graph, self.inputs = graph, specs
        found = graph({name: np.zeros(*spec) for name, spec in specs.items()})
        self.outputs = {name: TensorSpec(array.shape, array.dtype) for name, array in found.items()}

    def run(self, feeds: Mapping[str, View], outputs: Mapping[str, View], stream: int) -> None:
        import cupy

        runtime = cupy.cuda.runtime
        runtime.streamSynchronize(stream)
        given = {name: np.empty(view.shape, view.dtype) for name, view in feeds.items()}
        for name, array in given.items():
            runtime.memcpy(array.ctypes.data, feeds[name].pointer, array.nbytes, runtime.memcpyDeviceToHost)
        for name, array in self._graph(given).items():
            dense = np.ascontiguousarray(array, outputs[name].dtype)
            runtime.memcpy(outputs[name].pointer, dense.ctypes.data, dense.nbytes, runtime.memcpyHostToDevice)
        # A copy from pageable memory may return before it has arrived, and streams do not wait for the default one.
        runtime.deviceSynchronize()


def assert_same(got: Detections, wanted: Detections, tolerance: float = 1e-3) -> None:
    """Everything a result says; boxes within `tolerance` pixels, confidences within a tenth of it."""
    for name in ("frame_index", "pts", "source_id", "height", "width", "pool_fill", "lookahead", "epoch"):
        assert getattr(got, name) == getattr(wanted, name), name
    assert got.class_names == wanted.class_names
    assert (got.tracker_id is None) == (wanted.tracker_id is None)
    if got.tracker_id is not None and wanted.tracker_id is not None:
        assert got.tracker_id.tolist() == wanted.tracker_id.tolist()
    assert got.class_id.tolist() == wanted.class_id.tolist()
    np.testing.assert_allclose(got.xyxy, wanted.xyxy, atol=tolerance)
    np.testing.assert_allclose(got.confidence, wanted.confidence, atol=tolerance / 10)
