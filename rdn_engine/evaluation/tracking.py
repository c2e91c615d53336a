"""How lasting the identities of linked results are: HOTA, MOTA, IDF1 and switches, by TrackEval."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdn_engine.errors import BackendUnavailable
from rdn_engine.evaluation.boxes import Bool, Detected, Int, Truth, iou


def identities(truth: Truth, found: Detected, kept: Bool) -> dict[str, Any]:
    """HOTA, DetA, AssA, MOTA and IDF1 in percent, and identity switches; every class of every video is a sequence.

    Args:
        truth: all annotated boxes; those of ignore regions, and of objects that nobody followed, are left out.
        found: all detections, linked.
        kept: [n] which of them are acted on.

    Returns:
        Figures, and the number of sequences that have any box, all pooled.

    Raises:
        BackendUnavailable: without TrackEval.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise BackendUnavailable(f"HOTA and IDF1 need trackeval ({error}); pip install trackeval") from error
    objects = truth[(truth.instance >= 0) & ~truth.ignore]
    ours = found[kept & (found.track >= 0)]
    keys, place = np.unique(np.concatenate([_keys(objects), _keys(ours)]), axis=0, return_inverse=True)
    theirs, found_in = np.split(place.ravel(), [len(objects)])
    groups = zip(_groups(theirs, len(keys)), _groups(found_in, len(keys)), strict=True)
    sequences = [_sequence(objects[a], ours[b]) for a, b in groups]
    results: dict[str, Any] = {}
    for metric in (HOTA(), CLEAR({"PRINT_CONFIG": False}), Identity({"PRINT_CONFIG": False})):
        each = {str(i): metric.eval_sequence(s) for i, s in enumerate(sequences)}
        results |= metric.combine_sequences(each)
    percent = {n: 100 * float(np.mean(results[n])) for n in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")}
    return percent | {"switches": int(results["IDSW"]), "sequences": len(sequences)}


def _keys(boxes: Truth | Detected) -> Int:
    return np.stack([boxes.video, boxes.label], axis=1)


def _groups(place: Int, count: int) -> list[Int]:
    """The rows of each of `count` places, in order"""
    return np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place, minlength=count))[:-1])


def _sequence(truth: Truth, ours: Detected) -> dict[str, Any]:
    """What TrackEval's metrics take; a frame in which neither has a box changes none of them."""
    times = np.unique(np.concatenate([truth.time, ours.time]))
    gt_ids, num_gt = _renumbered(truth.instance, truth.time, times)
    tracker_ids, num_tracker = _renumbered(ours.track, ours.time, times)
    return {
        "num_timesteps": len(times),
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "num_gt_ids": num_gt,
        "num_tracker_ids": num_tracker,
        "num_gt_dets": len(truth),
        "num_tracker_dets": len(ours),
        "similarity_scores": [iou(truth.xyxy[truth.time == t], ours.xyxy[ours.time == t]) for t in times],
    }


def _renumbered(ids: Int, time: Int, times: Int) -> tuple[list[Int], int]:
    """Identities from 0, those of each time, and how many there are"""
    known, numbers = np.unique(ids, return_inverse=True)
    return [numbers[time == t] for t in times], len(known)
