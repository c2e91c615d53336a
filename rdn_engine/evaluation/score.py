"""The accuracy of detections in every protocol; docs/evaluation.md defines the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rdn_engine.errors import BackendUnavailable
from rdn_engine.evaluation import delay, motion, operating, stability, tracking
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.average_precision import COCO_AREAS, COCO_EDGES, ClassMatch, coco_class, match_class, mean
from rdn_engine.evaluation.boxes import Bool, Detected, Float, Found, Truth

Result = dict[str, Any]

VID = "VID: AP at IoU 0.5, sides of x2 - x1 + 1, whole area under the precision-recall curve, no limit of detections"
COCO = "COCO: 101 recalls, 100 detections of a class in a frame; AP50 at IoU 0.5, AP the mean over 0.5 to 0.95"
SPEED = (
    "VID, of objects by motion: mean IoU of a box with those of the same object up to "
    f"{motion.NEARBY} frames away; slow above {motion.SLOW_ABOVE}, fast below {motion.FAST_BELOW}, medium between; "
    "what meets other objects does not count, what meets none is shared out as in FGFA"
)
SIZE = (
    "VID, of objects by size: the smaller, middle and larger third of the annotated boxes by area; what meets other "
    "objects, and false detections of other sizes, do not count"
)
SIZE_COCO = "COCO, of objects by size: box area below 32^2, 32^2 to 96^2, above 96^2 pixels of the frame"
DELAY = (
    "Average delay (Mao et al. 2019): frames from an object's first to the first in which it is found, missing ones to "
    f"the frame after their last, at most {delay.LONGEST}; mean over objects at each of "
    f"{', '.join(map(str, delay.RATES))} false detections an annotated box, harmonic mean over those"
)
OPERATING = (
    "LRP at IoU 0.5 (Oksuz et al. 2021): of objects and of detections above a threshold, the part that is missed or "
    "false, and 2 (1 - IoU) of what meets; each class's threshold is where that is lowest, oLRP the mean over classes"
)
CALIBRATION = (
    f"D-ECE (Küppers et al. 2020): mean |precision - confidence| over {operating.BINS} bins of confidence, all classes "
    f"together, meetings of the VID protocol; D_ECE_certain of confidences of {operating.CERTAIN} or more"
)
STABILITY = (
    "Zhang and Wang 2016, of detections above the operating thresholds, meetings of the VID protocol, means over "
    "instances: fragments a step from frame to frame, standard deviations of centre (width + height) and shape "
    "(scale + ratio of sides)"
)
TRACKING = (
    "TrackEval, of detections above the operating thresholds: HOTA, DetA, AssA are means over IoU 0.05 to 0.95, MOTA, "
    "IDF1 and switches at IoU 0.5; every class of every video a sequence, all pooled"
)

NOT_LINKED = "the results were not linked"
NO_INSTANCES = "no annotation has an instance_id, so nobody can tell which boxes are one object"

RECALLS = np.linspace(0, 1, 101)


def score(found: Mapping[int, Found], videos: Annotated, class_names: tuple[str, ...], look_ahead: int) -> Result:
    """The accuracy of detections that are there already.

    Args:
        found: `Frame.id` -> detections, for every frame.
        videos: annotated ones.
        class_names: of the detector; they may come in another order than the data set's.
        look_ahead: frames that each result waited for, which the result quotes.

    Returns:
        Figures by protocol, as JSON holds them; AP is in percent, None where there is no object, delays are in frames.

    Raises:
        DatasetError: frames or classes are not the data set's.
    """
    truth, detected = Truth.of(videos.dataset), Detected.of(found, videos.dataset, class_names)
    # Not told by the identities: of linked boxes too, none need have one.
    linked = any(getattr(one, "tracker_id", None) is not None for one in found.values())
    names = videos.dataset.class_names
    matches = [match_class(truth, detected, c) for c in range(len(names))]
    coco = [coco_class(truth, detected, c) for c in range(len(names))]
    return {
        "data": _data(videos, truth),
        "vid": {
            "protocol": VID,
            "AP50": mean(m.ap for m in matches),
            "per_class": {n: mean([m.ap]) for n, m in zip(names, matches, strict=True)},
            "conditions": {
                name: {"frames": len(ids), **_condition(truth, detected, matches, ids)}
                for name, ids in videos.conditions.items()
            },
        },
        "coco": {
            "protocol": COCO,
            "AP50": mean(_coco_ap(p, 1, 0) for p in coco),
            "AP": mean(_coco_ap(p, 10, 0) for p in coco),
            "per_class": {n: mean([_coco_ap(p, 1, 0)]) for n, p in zip(names, coco, strict=True)},
        },
        "speed": _speed(truth, detected, matches),
        "size": _thirds(truth, detected, matches),
        "size_coco": {"protocol": SIZE_COCO, **_coco_sizes(truth, coco)},
        "delay": _delay(truth, detected, matches, videos, look_ahead),
        **_acting(truth, detected, matches, names, linked),
    }


def precision_recall(found: Mapping[int, Found], videos: Annotated, class_names: tuple[str, ...]) -> dict[str, Float]:
    """Curves of the VID protocol, mean over classes.

    Args:
        found: `Frame.id` -> detections, for every frame.
        videos: annotated ones.
        class_names: of the detector.

    Returns:
        `all`, and each speed that any object has, -> [101] best precision, 0..1, at a recall of 0, 0.01 ... 1.

    Raises:
        DatasetError: frames or classes are not the data set's.
    """
    truth, detected = Truth.of(videos.dataset), Detected.of(found, videos.dataset, class_names)
    matches = [match_class(truth, detected, c) for c in range(len(class_names))]
    groups = motion.speeds(truth)
    weights = motion.shares(truth, detected, groups)
    curves = {"all": [m.precision for m in matches]}
    curves |= {name: [m.part(counts, weights[name]) for m in matches] for name, counts in groups.items()}
    sampled = {name: [_sampled(p) for p in parts if len(p)] for name, parts in curves.items()}
    return {name: np.mean(parts, axis=0) for name, parts in sampled.items() if parts}


def _sampled(precision: Float) -> Float:
    """Precision at recalls of 1/n ... 1 -> at RECALLS"""
    n = len(precision)
    sampled: Float = precision[np.maximum(np.ceil(RECALLS * n - 1e-9).astype(int) - 1, 0)]
    return sampled


def _data(videos: Annotated, truth: Truth) -> Result:
    objects = truth[~truth.ignore]
    tracked = objects.instance >= 0
    tracks = np.stack([objects.video[tracked], objects.instance[tracked]])
    counts = np.bincount(objects.label, minlength=len(videos.dataset.categories))
    return {
        "name": videos.name,
        "videos": sum(1 for _ in videos.videos()),
        "frames": len(videos.dataset.frames),
        "objects": len(objects),
        "ignore_regions": len(truth) - len(objects),
        "instances": int(np.unique(tracks, axis=1).shape[1]),
        "classes": dict(zip(videos.dataset.class_names, counts.tolist(), strict=True)),
    }


def _coco_ap(precision: Float, thresholds: int, area: int) -> float | None:
    """Mean over the first IoU thresholds and all recalls in one area; None where it has no object."""
    part = precision[:thresholds, :, area]
    return None if part.min() < 0 else float(part.mean())


def _part(matches: list[ClassMatch], counts: Bool, weights: Float) -> Result:
    """Of the objects in `counts`, which holds no ignore region"""
    curves = [m.part(counts, weights) for m in matches]
    return {"AP50": mean(float(p.mean()) if len(p) else None for p in curves), "objects": int(counts.sum())}


def _condition(truth: Truth, detected: Detected, matches: list[ClassMatch], ids: list[int]) -> Result:
    return _part(matches, np.isin(truth.image, ids) & ~truth.ignore, np.isin(detected.image, ids).astype(float))


def _speed(truth: Truth, detected: Detected, matches: list[ClassMatch]) -> Result:
    if (truth.instance < 0).all():
        return {"protocol": SPEED, "absent": NO_INSTANCES}
    groups = motion.speeds(truth)
    weights = motion.shares(truth, detected, groups)
    parts = {name: _part(matches, counts, weights[name]) for name, counts in groups.items()}
    known = sum(part["objects"] for part in parts.values())
    return {"protocol": SPEED, **parts, "objects_unknown": int((~truth.ignore).sum()) - known}


def _thirds(truth: Truth, detected: Detected, matches: list[ClassMatch]) -> Result:
    area, area_found = truth.area(), detected.area()
    edges = np.quantile(area[~truth.ignore], [1 / 3, 2 / 3])
    third, third_found = np.searchsorted(edges, area), np.searchsorted(edges, area_found)
    parts = {
        name: _part(matches, (third == i) & ~truth.ignore, (third_found == i).astype(float))
        for i, name in enumerate(("small", "medium", "large"))
    }
    return {"protocol": SIZE, **parts, "edges_pixels": edges.tolist()}


def _coco_sizes(truth: Truth, coco: list[Float]) -> Result:
    counts = np.histogram(truth.area()[~truth.ignore], [0, *COCO_EDGES, np.inf])[0].tolist()
    return {
        name: {
            "AP50": mean(_coco_ap(p, 1, i) for p in coco),
            "AP": mean(_coco_ap(p, 10, i) for p in coco),
            "objects": counts[i - 1],
        }
        for i, name in enumerate(COCO_AREAS)
        if i > 0
    }


def _delay(truth: Truth, detected: Detected, matches: list[ClassMatch], videos: Annotated, look_ahead: int) -> Result:
    if (truth.instance < 0).all():
        return {"protocol": DELAY, "absent": NO_INSTANCES}
    found = delay.delays(truth, detected, matches, videos.starts())
    return {
        "protocol": DELAY,
        "frames": found.average(np.ones_like(found.entering)),
        "instances": len(found.entering),
        "frames_entering": found.average(found.entering),
        "instances_entering": int(found.entering.sum()),
        "look_ahead": look_ahead,
        "per_rate": [
            {"rate": rate, "confidence": float(threshold), "frames": float(row.mean())}
            for rate, threshold, row in zip(delay.RATES, found.thresholds, found.frames, strict=True)
        ],
    }


def _acting(truth: Truth, detected: Detected, matches: list[ClassMatch], names: list[str], linked: bool) -> Result:
    """What counts for whoever acts on detections above a threshold"""
    points = [operating.operating_point(truth, detected, m) for m in matches]
    kept = operating.accepted(detected, points)
    return {
        "operating": {
            "protocol": OPERATING,
            "oLRP": mean(None if p is None else p.lrp for p in points),
            "per_class": {n: None if p is None else vars(p) for n, p in zip(names, points, strict=True)},
        },
        "calibration": _calibration(truth, detected, matches),
        "stability": _stability(truth, detected, matches, kept),
        "tracking": _tracking(truth, detected, kept, linked),
    }


def _calibration(truth: Truth, detected: Detected, matches: list[ClassMatch]) -> Result:
    rows, met = (np.concatenate(part) for part in zip(*(operating.counted(truth, m) for m in matches), strict=True))
    confidence, right = detected.confidence[rows], met >= 0
    certain = confidence >= operating.CERTAIN
    every = operating.reliability(confidence, right)
    there = every.count > 0
    return {
        "protocol": CALIBRATION,
        "D_ECE": every.error,
        "D_ECE_certain": operating.reliability(confidence[certain], right[certain]).error,
        "detections": len(rows),
        "bins": [
            {"confidence": c, "precision": p, "detections": n}
            for c, p, n in zip(
                every.confidence[there].tolist(),
                every.precision[there].tolist(),
                every.count[there].tolist(),
                strict=True,
            )
        ],
    }


def _stability(truth: Truth, detected: Detected, matches: list[ClassMatch], kept: Bool) -> Result:
    if (truth.instance < 0).all():
        return {"protocol": STABILITY, "absent": NO_INSTANCES}
    return {"protocol": STABILITY, **vars(stability.stability(truth, detected, matches, kept))}


def _tracking(truth: Truth, detected: Detected, kept: Bool, linked: bool) -> Result:
    if (truth.instance < 0).all():
        return {"protocol": TRACKING, "absent": NO_INSTANCES}
    if not linked:
        return {"protocol": TRACKING, "absent": NOT_LINKED}
    try:
        return {"protocol": TRACKING, **tracking.identities(truth, detected, kept)}
    except BackendUnavailable as error:
        return {"protocol": TRACKING, "absent": str(error)}
