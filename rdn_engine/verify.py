"""Does this machine compute what the checkpoint computed? A bundle's golden frames again, stage by stage.

Every stage gets the stored result of the stage before, so that one flipped tie of an NMS does not spread; the
detections are compared once more from the frames alone. DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.backends import load_backend
from rdn_engine.backends.graph import Backend, BackendName, Device
from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import LARGEST_TOLERANCE, Manifest
from rdn_engine.config import RDNConfig
from rdn_engine.detector import Detector
from rdn_engine.errors import BundleError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder, DetectorScores
from rdn_engine.host.cosine_stage import CosineStage
from rdn_engine.host.encoder import Encoder
from rdn_engine.host.features import EncodedFrame, RelationOutput
from rdn_engine.host.memory import open_memory
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import Relation
from rdn_engine.host.runtime import Executor, HostRuntime, load_encoder, load_relation
from rdn_engine.kernels.cpu.arrays import Float

STAGES = ("boxes", "objectness", "features", "logits", "deltas", "detections")
BOTH = "both"
"""Executor of a report on what no executor changes."""

TIE_ALLOWANCE = 0.02
"""Part of the proposals or detections of all golden frames that may differ: ties at a threshold go either way."""

# Larger than any difference within a class, so that detections of two classes never match.
_CLASS_GAP = 1e3

Golden = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StageReport:
    """One comparison with the golden results."""

    stage: str
    """One of STAGES"""
    executor: str
    """`fused`, `graph`, or BOTH for the stages in front of the relation stage, and where there is none"""
    difference: float
    """Largest error: features, logits and deltas relative to the largest stored value; boxes relative to the longer
    side of the image; objectness and confidence as they are. Infinite where something has no counterpart."""
    tolerance: float
    """The largest difference that is allowed: the manifest's `tolerances`, or `tolerances_of` another library"""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance


def verify(
    directory: str | Path, *, backend: BackendName = "onnxruntime", device: Device = "cpu", threads: int = 1
) -> list[StageReport]:
    """Recompute the golden results of a bundle with both executors, on the CPU's kernels.

    Args:
        directory: an engine directory.
        backend: what runs the graphs.
        device: where the graphs run.
        threads: CPU threads of every stage, 1..MOST_THREADS.

    Returns:
        A report for each stage, and for each executor from the logits on.

    Raises:
        BundleError: for a bundle that cannot be opened, or whose golden results are not of its own model.
        BackendUnavailable: for a backend or device that this machine or this build does not have.
        ConfigError: for another number of threads.
    """
    runner = load_backend(backend, device, threads)
    bundle = Bundle.open(directory)
    tolerances = tolerances_of(bundle.manifest, backend)
    missing = sorted(set(stages_of(bundle.config)) - set(tolerances))
    if missing:
        raise BundleError(f"the manifest has no tolerance for {missing}; it has {sorted(tolerances)}")
    found = _differences(bundle, _load_golden(bundle), runner, threads)
    return [StageReport(stage, executor, difference, tolerances[stage]) for stage, executor, difference in found]


def tolerances_of(manifest: Manifest, backend: BackendName) -> dict[str, float]:
    """What a library may differ by from the golden results, which are ONNX Runtime's.

    A library rounds INT8 its own way (OpenVINO 2026.4.1 at sums of two branches), and every layer behind carries that
    on. Whoever is as near to float32 as the golden results are is within twice their distance.

    Args:
        manifest: of the bundle.
        backend: what runs the graphs.

    Returns:
        stage -> the manifest's tolerance; of INT8 in another library at least twice the quantisation error.
    """
    if manifest.precision != "int8" or backend == "onnxruntime":
        return dict(manifest.tolerances)
    errors = manifest.quantization_error
    return {stage: max(tolerance, 2 * errors.get(stage, 0.0)) for stage, tolerance in manifest.tolerances.items()}


def quantization_error(exact: Bundle, golden: Golden) -> dict[str, float]:
    """How far golden results are from float32's, of the same inputs.

    Args:
        exact: the float32 bundle.
        golden: of the bundle that was quantised from it.

    Returns:
        stage -> largest difference, at most LARGEST_TOLERANCE, above which it says nothing.
    """
    errors: dict[str, float] = {}
    for stage, _, difference in _differences(exact, golden, load_backend("onnxruntime", "cpu", 1), 1):
        errors[stage] = min(max(difference, errors.get(stage, 0.0)), LARGEST_TOLERANCE)
    return errors


def _differences(bundle: Bundle, golden: Golden, runner: Backend, threads: int) -> list[tuple[str, str, float]]:
    """Stage, executor, and how far what this machine makes of the golden inputs is from the golden results."""
    config = bundle.config
    encoder = load_encoder(bundle, runner, threads)
    relations: dict[str, Relation | CosineStage] = {BOTH: DetectorScores()}
    if not config.alone:
        executors: tuple[Executor, ...] = ("fused", "graph")
        relations = {e: load_relation(bundle, runner, e, "float32", threads) for e in executors}
    rows: list[tuple[str, str, float]] = []
    found = []
    for t, image in enumerate(golden["frames"]):
        network = preprocess.network_input(image, config.input, threads)
        if isinstance(encoder, Encoder):
            found.append(_encode(encoder, network, config, golden, t))
        else:
            found.append(_encode_attached(encoder, network, config, golden, t))
    times = range(len(found))
    longest = max(config.input.network_size(*golden["frames"].shape[1:3]))
    wanted_objectness = [golden[f"t{t}/objectness"] for t in times]
    got_boxes = [box_rows(one.boxes, longest) for one in found]
    wanted_boxes = [box_rows(golden[f"t{t}/boxes"], longest) for t in times]
    rows.append(("boxes", BOTH, set_difference(got_boxes, wanted_boxes)))
    got_objectness = [one.objectness[:, None] for one in found]
    rows.append(("objectness", BOTH, set_difference(got_objectness, [o[:, None] for o in wanted_objectness])))
    rows.append(("features", BOTH, max(_relative(found[t].features, golden[f"t{t}/features"]) for t in times)))
    for executor, relation in relations.items():
        outputs = relate_all(relation, config, [one.frame for one in found])
        for stage in (s for s in ("logits", "deltas") if s in stages_of(config)):
            worst = max(_relative(getattr(out, stage), golden[f"t{t}/{stage}"]) for t, out in enumerate(outputs))
            rows.append((stage, executor, worst))
        detector = Detector(HostRuntime(HostModel(config, encoder, relation, threads)))
        rows.append(("detections", executor, _detection_difference(detector, golden)))
    return rows


def stages_of(config: RDNConfig) -> tuple[str, ...]:
    """The stages whose golden results a bundle holds.

    Args:
        config: of its model.
    """
    cosine = config.cosine_score
    left_out = {"logits", "deltas"} if config.alone else {"deltas"} if cosine else set()
    return tuple(stage for stage in STAGES if stage not in left_out)


def _load_golden(bundle: Bundle) -> Golden:
    golden = bundle.arrays("golden")
    frames = golden.get("frames")
    if frames is None or frames.ndim != 4 or frames.dtype != np.uint8 or not len(frames):
        got = None if frames is None else f"{frames.dtype} {list(frames.shape)}"
        raise BundleError(f"golden frames are {got}; wanted uint8 [F, H, W, 3]")
    dim, logits = bundle.config.relation.dim, bundle.config.num_logits
    if bundle.config.cosine_score:  # both features side by side, and no background
        dim, logits = 2 * dim, logits - 1
    # Rows of the proposals, then of the detections; each group agrees on how many there are.
    widths = {"boxes": (4,), "objectness": (), "features": (dim,), "logits": (logits,), "deltas": (4 * logits,)}
    widths = {name: width for name, width in widths.items() if name in stages_of(bundle.config)}
    if bundle.config.attached is not None:
        widths["rows"] = ()
    found = {"xyxy": (4,), "confidence": (), "class_id": ()}
    for t in range(len(frames)):
        for group in (widths, found):
            first = golden.get(f"t{t}/{next(iter(group))}")
            rows = len(first) if first is not None and first.ndim else 0
            for name, width in group.items():
                _check_golden(golden.get(f"t{t}/{name}"), f"t{t}/{name}", (rows, *width))
    return golden


def _check_golden(array: NDArray[Any] | None, name: str, shape: tuple[int, ...]) -> None:
    dtype = np.int64 if name.endswith(("class_id", "/rows")) else np.float32
    if array is None or array.shape != shape or array.dtype != dtype or not np.isfinite(array).all():
        got = "missing" if array is None else f"{array.dtype} {list(array.shape)}"
        raise BundleError(f"golden result {name} is {got}; wanted finite {np.dtype(dtype)} {list(shape)}")


@dataclass(frozen=True)
class _Found:
    """What this machine makes of a golden frame."""

    boxes: Float
    objectness: Float
    features: Float
    """Of the stored proposals"""
    frame: EncodedFrame
    """The stored proposals and features, with the projections computed here"""


def _encode(encoder: Encoder, network: Float, config: RDNConfig, golden: Golden, t: int) -> _Found:
    maps = encoder.maps(network[None])
    found = encoder.propose(maps, (network.shape[1], network.shape[2]), config.dials.num_reference)
    boxes = golden[f"t{t}/boxes"]
    pooled = encoder.pool(maps["feature_map"], boxes, np.zeros(len(boxes), np.int64))
    rows = encoder.describe(pooled, np.arange(min(len(boxes), config.dials.num_support)))
    count = found.counts[0]
    return _found(found.boxes[0, :count], found.objectness[0, :count], rows, golden, t)


def _encode_attached(encoder: AttachedEncoder, network: Float, config: RDNConfig, golden: Golden, t: int) -> _Found:
    (found,) = encoder.candidates(network[None])
    chosen, stored = encoder.select(found, config.dials.num_reference), golden[f"t{t}/rows"]
    if len(stored) and not 0 <= stored.min() <= stored.max() < len(found.boxes):
        raise BundleError(
            f"golden result t{t}/rows lies in {stored.min()}..{stored.max()}; wanted 0..{len(found.boxes) - 1}, the "
            "candidates of the encoder"
        )
    rows = encoder.describe(encoder.pool(found, stored), np.arange(min(len(stored), config.dials.num_support)))
    frame = _found(found.boxes[chosen], found.importance[chosen], rows, golden, t)
    return replace(frame, frame=replace(frame.frame, class_scores=found.class_scores[stored]))


def _found(boxes: Float, objectness: Float, rows: dict[str, Float], golden: Golden, t: int) -> _Found:
    features = rows.pop("features")
    frame = EncodedFrame(golden[f"t{t}/boxes"], golden[f"t{t}/objectness"], golden[f"t{t}/features"], **rows)
    return _Found(boxes, objectness, features, frame)


def relate_all(
    relation: Relation | CosineStage, config: RDNConfig, frames: Sequence[EncodedFrame]
) -> list[RelationOutput]:
    """The relation stage as a stream runs it: frame t - L when frame t has come, the rest at the end.

    Args:
        relation: the executor.
        config: of the model, with the dials.
        frames: of one epoch, in order.

    Returns:
        An output for each frame, in order.
    """
    dials = replace(config.dials, link="off")
    memory = open_memory(relation, config, dials)
    outputs: list[RelationOutput] = []

    def emit(upto: int) -> None:
        due = range(len(outputs), upto + 1)
        outputs.extend(memory.relate(t, dials, lambda stage: None)[1] for t in due)

    for frame in frames:
        emit(memory.append(frame) - dials.frames_ahead)
    emit(memory.newest)
    return outputs


def _detection_difference(detector: Detector, golden: Golden) -> float:
    got, wanted = [], []
    scale = max(golden["frames"].shape[1:3])
    dials = replace(detector.config.dials, link="off")
    for t, found in enumerate(detector.predict(golden["frames"], stream=True, dials=dials)):
        got.append(detection_rows(found.xyxy / scale, found.confidence, found.class_id))
        stored = (golden[f"t{t}/{name}"] for name in ("xyxy", "confidence", "class_id"))
        xyxy, confidence, class_id = stored
        wanted.append(detection_rows(xyxy / scale, confidence, class_id))
    return set_difference(got, wanted)


def detection_rows(xyxy: Float, confidence: Float, class_id: NDArray[np.int64]) -> NDArray[np.float64]:
    """Detections as rows that `set_difference` compares: those of two classes are far apart.

    Args:
        xyxy: [n, 4], in the unit that differences are wanted in.
        confidence: [n] in 0..1.
        class_id: [n].

    Returns:
        [n, 6].
    """
    return np.column_stack([xyxy, confidence, class_id * _CLASS_GAP]).astype(np.float64)


def box_rows(boxes: Float, longest: int) -> Float:
    """Proposals as rows that `set_difference` compares: an edge more than an image away is as far as one an image away.

    Sides are exponentials of what a network says. Where it has never seen the like they are of any size, and so is what
    float32 makes them differ by; results are clipped to the image.

    Args:
        boxes: [n, 4], pixels of the network input.
        longest: the longer side of the image, pixels.

    Returns:
        [n, 4] in -1..2, in longer sides of the image; what is not finite stays so.
    """
    return np.where(np.isinf(boxes), boxes, (boxes / longest).clip(-1, 2))


def _relative(got: Float, wanted: Float) -> float:
    """Largest difference, relative to the largest wanted value; infinite for NaN."""
    if got.shape != wanted.shape:
        raise BundleError(f"a golden result has shape {list(wanted.shape)}; this machine computes {list(got.shape)}")
    if not got.size:
        return 0.0
    difference = float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
    return difference if np.isfinite(difference) else np.inf


def set_difference(got: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """Largest distance of a row to its nearest counterpart in the same frame, both ways.

    Args:
        got, wanted: [n_t, m] of each frame t, in any order; the distance of two rows is the largest difference of a
            column.

    Returns:
        The distance without the farthest rows of either side, a part of TIE_ALLOWANCE of them; infinite where a row
        beyond those has no counterpart or is not finite.
    """
    return max(_one_way(got, wanted), _one_way(wanted, got))


def _one_way(rows: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> float:
    nearest: list[float] = []
    for ours, theirs in zip(rows, others, strict=True):
        for row in ours:
            distance = np.abs(theirs - row).max(axis=1).min() if len(theirs) else np.inf
            nearest.append(float(distance) if np.isfinite(distance) else np.inf)
    nearest.sort()
    kept = len(nearest) - int(TIE_ALLOWANCE * len(nearest))
    return nearest[kept - 1] if nearest else 0.0
