"""Boxes, names and confidences on a copy of a frame."""

from __future__ import annotations

import colorsys

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

    A colour is a class, or where boxes were linked an identity; boxes without one are grey.

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
    for i in rows:
        _label(draw, font, line, detections, i)
    return np.asarray(canvas)


def _label(
    draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, line: int, found: Detections, i: int
) -> None:
    background = _colour_of(found, i)
    x1, y1 = float(found.xyxy[i, 0]), float(found.xyxy[i, 1])
    track = "" if found.tracker_id is None or found.tracker_id[i] == NOBODY else f"#{found.tracker_id[i]} "
    text = f"{track}{found.class_names[found.class_id[i]]} {found.confidence[i]:.2f}"
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * line, bottom - top + 2 * line
    frame_width, frame_height = draw.im.size
    x = max(0.0, min(x1, frame_width - width))
    # Above the box where there is room, else inside it along its upper edge.
    y = y1 - height if y1 >= height else y1
    y = max(0.0, min(y, frame_height - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=background)
    draw.text((x + line - left, y + line - top), text, font=font, fill=_ink(background))


def _colour_of(found: Detections, i: int) -> Colour:
    if found.tracker_id is None:
        return colour(int(found.class_id[i]))
    return _NAMELESS if found.tracker_id[i] == NOBODY else colour(int(found.tracker_id[i]))


def _ink(background: Colour) -> Colour:
    """Black or white, whichever stands out; weights are those of Rec. 709 luma."""
    red, green, blue = background
    return (0, 0, 0) if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else (255, 255, 255)
