"""Boxes, names and confidences on a copy of a frame."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rdn_engine.results import NOBODY, Detections

Colour = tuple[int, int, int]

_GOLDEN_RATIO = 0.618034
_LINE = 1 / 240
"""Width of a box's line, as a part of the frame's shorter side"""
_TEXT = 1 / 28
"""Height of the text, as a part of the frame's shorter side"""
_NAMELESS: Colour = (128, 128, 128)
"""Of a linked box that has no identity"""
_LAST_CHOICE = 1.0
"""Pixels that a place is worse by that had to be moved into the frame"""
_MIN_TEXT = 11
"""pixels; smaller is not legible"""


def colour(number: int) -> Colour:
    """A colour that is always the same for a class or an identity, and far from that of its neighbours.

    Args:
        number: class or identity, 0 or more.

    Returns:
        Red, green and blue in 0..255.
    """
    hue = number * _GOLDEN_RATIO % 1.0
    # Every other one is darker, so that hues which come close after a while still differ.
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0 if number % 2 == 0 else 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def annotate(image: NDArray[np.uint8], detections: Detections, threshold: float = 0.0) -> NDArray[np.uint8]:
    """Draw detections on a copy of a frame, the most confident on top.

    A colour is a class, or where boxes were linked an identity; boxes without one are grey. Labels stand where they do
    not cover each other, as far as there is room.

    Args:
        image: uint8 [H, W, 3] RGB.
        detections: of this frame.
        threshold: in 0..1; boxes below this confidence are not drawn.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    side = min(image.shape[:2])
    font = ImageFont.load_default(size=max(_MIN_TEXT, round(side * _TEXT)))
    line = max(2, round(side * _LINE))
    rows = [int(i) for i in np.argsort(detections.confidence, kind="stable") if detections.confidence[i] >= threshold]
    # All boxes first, so that no line crosses out a name.
    for i in rows:
        x1, y1, x2, y2 = (float(v) for v in detections.xyxy[i])
        outline = _colour_of(detections, i)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=outline, width=line)
    texts = [_text_of(detections, i) for i in rows]
    extents = [draw.textbbox((0, 0), text, font=font) for text in texts]
    sizes = [(right - left + 2 * line, bottom - top + 2 * line) for left, top, right, bottom in extents]
    # The most confident chooses first, and is drawn last.
    places = _places(detections.xyxy[rows][::-1], sizes[::-1], canvas.size)[::-1]
    for i, text, (left, top, _, _), (width, height), (x, y) in zip(rows, texts, extents, sizes, places, strict=True):
        background = _colour_of(detections, i)
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=background)
        draw.text((x + line - left, y + line - top), text, font=font, fill=_ink(background))
    return np.asarray(canvas)


def _places(
    boxes: NDArray[np.floating[Any]], sizes: Sequence[tuple[float, float]], frame: tuple[int, int]
) -> list[tuple[float, float]]:
    """Where labels go: one after another to the first place beside its box where it covers no other, and where there is
    none to the one where it covers least.

    Args:
        boxes: [n, 4] xyxy, pixels of the frame.
        sizes: width and height of each label, pixels.
        frame: its width and height, pixels.

    Returns:
        The upper left corner of each label, so that it lies inside the frame.
    """
    taken = np.empty((len(sizes), 4))
    for k, ((x1, y1, x2, y2), (width, height)) in enumerate(zip(boxes.tolist(), sizes, strict=True)):
        above, below, right = y1 - height, y2 + 1, x2 - width + 1
        corners = np.array(
            [(x1, above), (right, above), (x1, below), (right, below), (x1, y1), (x1, y2 - height + 1), (x2 + 1, y1),
             (x1 - width, y1), (x1, above - height), (x1, below + height), (x1, above - 2 * height),
             (x1, below + 2 * height)]
        )  # fmt: skip
        inside = np.clip(corners, 0, np.maximum(0, np.subtract(frame, (width, height))))
        # What would leave the frame upwards or downwards is another place than it was meant to be.
        moved = inside[:, 1] != corners[:, 1]
        rectangles = np.hstack([inside, np.add(inside, (width, height))])
        cost = _covered(rectangles, taken[:k]) + np.where(moved, _LAST_CHOICE, 0)
        taken[k] = rectangles[int(np.argmin(cost))]
    return [(x, y) for x, y, _, _ in taken.tolist()]


def _covered(rectangles: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """[m] pixels of each of m rectangles [m, 4] that lie in others [k, 4]."""
    low = np.maximum(rectangles[:, None, :2], others[:, :2])
    high = np.minimum(rectangles[:, None, 2:], others[:, 2:])
    area: NDArray[np.float64] = np.maximum(high - low, 0).prod(axis=2).sum(axis=1)
    return area


def _text_of(found: Detections, i: int) -> str:
    track = "" if found.tracker_id is None or found.tracker_id[i] == NOBODY else f"#{found.tracker_id[i]} "
    return f"{track}{found.class_names[found.class_id[i]]} {found.confidence[i]:.2f}"


def _colour_of(found: Detections, i: int) -> Colour:
    if found.tracker_id is None:
        return colour(int(found.class_id[i]))
    return _NAMELESS if found.tracker_id[i] == NOBODY else colour(int(found.tracker_id[i]))


def _ink(background: Colour) -> Colour:
    """Black or white, whichever stands out; weights are those of Rec. 709 luma."""
    red, green, blue = background
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else (255, 255, 255)
