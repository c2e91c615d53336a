"""What a precision changes in detections, and what runs graphs that no manifest tells of yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.calibration import CalibrationFrames
from rdn_engine.backends import load_backend
from rdn_engine.bundle.manifest import GRAPHS, Agreement
from rdn_engine.config import RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import PrecisionError
from rdn_engine.host import preprocess
from rdn_engine.host.encoder import Encoder
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.relation_graph import GraphRelation
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu.arrays import Float
from rdn_engine.results import Detections
from rdn_engine.verify import relate_all

MIN_AGREEMENT = 0.95
"""Share of detections (`rdn_engine.bundle.manifest.Agreement`) below which a bundle is refused, unless told so."""
SCORE = 0.3
"""Detections below it are not compared."""
_OVERLAP = 0.5


def agreement(
    exact: Detector, reduced: Detector, frames: CalibrationFrames, precision: str, method: str, minimum: float
) -> Agreement:
    """Compares two detectors on the frames held out.

    Args:
        exact: in float32.
        reduced: in the reduced precision.
        frames: of the source that it was calibrated on.
        precision: name of it, for messages.
        method: how the ranges of activations were chosen.
        minimum: share of detections, 0..1, that has to be the same.

    Returns:
        The agreement as the manifest tells it; a share below `minimum` is not refused here.

    Raises:
        PrecisionError: there is nothing to compare.
    """
    compared, found, differences = 0, 0, []
    both = (d.predict(frames.held_out, stream=True) for d in (exact, reduced))
    for pair in zip(*both, strict=True):
        for ours, theirs in (pair, pair[::-1]):
            chosen = np.flatnonzero(ours.confidence >= SCORE)
            matched = _counterparts(ours, theirs, chosen)
            compared += len(chosen)
            found += len(matched)
            differences += matched
    if not compared:
        raise PrecisionError(
            f"neither float32 nor {precision} detects anything with a score of {SCORE} or more on the "
            f"{len(frames.held_out)} frames held out for comparing; wanted frames that show what the model detects"
        )
    return Agreement(
        share=found / compared,
        score_difference=float(np.mean(differences)) if differences else 1.0,
        score=SCORE,
        detections=compared,
        frames=len(frames.held_out),
        minimum=minimum,
        calibration=method,
        calibration_frames=len(frames.calibrate),
    )


def _counterparts(ours: Detections, theirs: Detections, chosen: NDArray[np.int64]) -> list[float]:
    """|difference of score| of each of our `chosen` detections that theirs has too; best scores choose first."""
    free = np.ones(len(theirs), bool)
    differences = []
    for i in chosen:
        fits = free & (theirs.class_id == ours.class_id[i]) & (theirs.confidence >= ours.confidence[i] / 2)
        overlaps = np.where(fits, _iou(ours.xyxy[i], theirs.xyxy), 0)
        if overlaps.max(initial=0) >= _OVERLAP:
            j = int(overlaps.argmax())
            free[j] = False
            differences.append(abs(float(ours.confidence[i] - theirs.confidence[j])))
    return differences


def _iou(box: Float, others: Float) -> Float:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = (high - low + 1).clip(0).prod(1)
    areas = [(b[..., 2:] - b[..., :2] + 1).prod(-1) for b in (box, others)]
    return np.asarray(overlap / (areas[0] + areas[1] - overlap), np.float32)


def fused_model(config: RDNConfig, directory: Path, weights: dict[str, Float]) -> HostModel:
    """The graphs in a directory that has no manifest yet, on one thread, and the relation stage in float32.

    Args:
        config: of the model.
        directory: has the graphs of the backbone and of roi_head.
        weights: of the relation stage.
    """
    return HostModel(config, _encoder(config, directory), FusedRelation(config, weights, 1), 1)


def graph_model(config: RDNConfig, directory: Path) -> HostModel:
    """The same with the relation stage from its graph, which is in the directory too."""
    graph = load_backend("onnxruntime", "cpu", 1).load(directory / GRAPHS["relation"])
    return HostModel(config, _encoder(config, directory), GraphRelation(config, graph), 1)


def detector_of(model: HostModel) -> Detector:
    return Detector(HostRuntime(model))


def golden_of(model: HostModel, frames: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
    """The arrays of `golden.npz` (export/golden.py), as this machine computes them.

    Args:
        model: whose stages compute them.
        frames: uint8 [F, H, W, 3] RGB.

    Returns:
        Name -> array, as `export.golden.golden_results`.
    """
    arrays: dict[str, NDArray[np.generic]] = {"frames": frames}
    config, dials = model.config, model.config.dials
    encoded = []
    for frame in frames:
        network = preprocess.network_input(frame, config.input, 1)
        encoded += model.encoder(network[None], dials.num_reference, dials.num_support, lambda _: None)
    found = detector_of(model).predict(list(frames), dials=replace(dials, link="off"))
    outputs = relate_all(model.relation, config, encoded)
    for t, (e, out, d) in enumerate(zip(encoded, outputs, found, strict=True)):
        stages: dict[str, NDArray[np.generic]] = {
            "boxes": e.boxes,
            "objectness": e.objectness,
            "features": e.features,
            "logits": out.logits,
            "deltas": out.deltas,
            "xyxy": d.xyxy,
            "confidence": d.confidence,
            "class_id": d.class_id,
        }
        arrays |= {f"t{t}/{name}": array for name, array in stages.items()}
    return arrays


def _encoder(config: RDNConfig, directory: Path) -> Encoder:
    backend = load_backend("onnxruntime", "cpu", 1)
    backbone, roi_head = (backend.load(directory / GRAPHS[role]) for role in ("backbone", "roi_head"))
    return Encoder(config, backbone, roi_head, 1)
