"""Boxes around masks, for layouts that give masks alone."""

from __future__ import annotations

from rdn_engine.errors import BackendUnavailable, DatasetError
from rdn_engine.evaluation.coco_vid import Box, Row, from_coco_box


def box_around(row: Row, name: str, width: int, height: int) -> Box | None:
    """The box around a mask in COCO's compressed run lengths.

    Args:
        row: that has the mask.
        name: of its field: text, or an object with `counts`.
        width: of the frame, pixels.
        height: of the frame, pixels.

    Returns:
        xyxy in pixels from 0, the last pixel included; None for a mask without a pixel.

    Raises:
        DatasetError: it is no such mask.
        BackendUnavailable: faster-coco-eval, which reads masks, is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise BackendUnavailable("masks want faster-coco-eval; pip install 'rdn-engine[evaluate]'") from error
    value = row.data.get(name)
    counts = value.get("counts") if isinstance(value, dict) else value
    # A frame of N pixels has at most N + 1 runs of at most seven letters each: more is no mask of this frame.
    if not isinstance(counts, str) or not counts or len(counts) > 7 * (width * height + 1) or not counts.isascii():
        row.refuse(name, "COCO's compressed run lengths")
    if not all("0" <= letter <= "o" for letter in counts):
        row.refuse(name, "COCO's compressed run lengths")
    if _pixels(counts) != width * height:
        raise DatasetError(f"{row.where}.{name} is a mask of another size; wanted one of {width} x {height} pixels")
    x, y, w, h = (float(v) for v in mask.toBbox({"size": [height, width], "counts": counts}))
    return from_coco_box((x, y, w, h)) if w and h else None


def _pixels(counts: str) -> int:
    """The sum of the runs, or -1 for what is none; a file from outside is measured before a library reads it."""
    runs: list[int] = []
    total, i = 0, 0
    while i < len(counts):
        value, shift, more = 0, 0, True
        while more and i < len(counts):
            letter = ord(counts[i]) - 48
            value |= (letter & 31) << shift
            more, shift, i = bool(letter & 32), shift + 5, i + 1
            if not more and letter & 16:
                value -= 1 << shift
        if more:
            return -1
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return -1
        runs.append(value)
        total += value
    return total
