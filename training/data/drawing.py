"""Backgrounds and patterned shapes, and how one is laid over the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rdn_engine.kernels.cpu.arrays import Float

SHAPES = ("disc", "triangle", "star")
PATTERNS = ("striped", "checked")
CLASS_NAMES = tuple(f"{pattern} {shape}" for shape in SHAPES for pattern in PATTERNS)


def draw_background(rng: np.random.Generator, width: int, height: int, clutter: int = 14) -> NDArray[np.uint8]:
    """[height, width, 3] smooth noise of three scales with plain shapes drawn over it."""
    image = np.full((height, width, 3), rng.uniform(60, 180, 3), np.float32)
    for cell, amplitude in ((64, 45), (16, 25), (5, 14)):
        grid = rng.uniform(-amplitude, amplitude, (height // cell + 2, width // cell + 2, 3)) + 128
        layer = Image.fromarray(grid.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(layer, np.float32) - 128
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    pencil = ImageDraw.Draw(picture, "RGBA")
    for _ in range(clutter):
        x, y = rng.uniform(0, (width, height))
        w, h = rng.uniform(6, 60, 2)
        colour = (*(int(c) for c in rng.integers(30, 225, 3)), int(rng.integers(60, 200)))
        draw = (pencil.rectangle, pencil.ellipse)[rng.integers(2)]
        draw((x - w / 2, y - h / 2, x + w / 2, y + h / 2), fill=colour)
    return np.array(picture)


def draw_sprite(rng: np.random.Generator, label: int | None, size: float) -> Image.Image:
    """RGBA, 1.5 sizes wide; the pattern fills the square (blur draws no fringe), alpha holds the shape."""
    side = int(1.5 * size)
    shape, pattern = SHAPES[rng.integers(len(SHAPES))], "plain"
    if label is not None:
        shape, pattern = SHAPES[label // len(PATTERNS)], PATTERNS[label % len(PATTERNS)]
    y, x = np.mgrid[:side, :side] * (2 * np.pi / (5 + 0.06 * size))
    # Both patterns cover half of the surface: what is left of them under blur is the same mean colour.
    wave = {"striped": np.sin(x), "checked": np.sin(x) * np.sin(y) * 1.6, "plain": np.zeros_like(x)}[pattern]
    mix = np.clip(0.5 + 1.5 * wave, 0, 1)[..., None]
    first = rng.integers(0, 256, 3)
    second = (first + rng.choice([-1, 1], 3) * rng.integers(70, 150, 3)) % 256
    image = Image.fromarray((first * mix + second * (1 - mix)).astype(np.uint8))
    mask = Image.new("L", (side * 4, side * 4), 0)
    pencil, middle, radius = ImageDraw.Draw(mask), 2 * side, 2 * size
    if shape == "disc":
        pencil.ellipse((middle - radius * 0.9,) * 2 + (middle + radius * 0.9,) * 2, fill=255)
    else:
        pencil.polygon([(middle + radius * u, middle + radius * v) for u, v in _outline(shape)], fill=255)
    image.putalpha(mask.reduce(4))
    return image


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners in -1..1; empty for the disc."""
    if shape == "disc":
        return []
    corners = {"triangle": 3, "star": 10}[shape]
    radius = [1.0, 0.45 if shape == "star" else 1.0]
    turns = np.arange(corners) / corners * 2 * np.pi
    return [(radius[i % 2] * np.sin(a), radius[i % 2] * np.cos(a)) for i, a in enumerate(turns)]


def turned(sprite: Image.Image, where: Float, half: int, degrees: float, scale: float) -> Image.Image:
    """The sprite turned and scaled in a square of 2 half pixels, its centre at the fraction of `where`."""
    turn = np.deg2rad(degrees)
    a, b = np.cos(turn) / scale, np.sin(turn) / scale
    u, v = where - np.floor(where) + half
    middle = sprite.width / 2
    data = (a, b, middle - a * u - b * v, -b, a, middle + b * u - a * v)
    return sprite.transform((2 * half, 2 * half), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def smeared(patch: Image.Image, way: Float) -> Image.Image:
    """The mean of copies shifted along `way`, [2] pixels; its middle stays, what leaves the patch is lost."""
    steps = int(np.ceil(np.abs(way).max()))
    if steps < 2:
        return patch
    pixels = np.asarray(patch.convert("RGBa"))  # colours times alpha, so that what is not there does not darken them
    total = np.zeros(pixels.shape, np.uint16)
    height, width = pixels.shape[:2]
    for part in np.linspace(-0.5, 0.5, steps + 1):
        x, y = np.round(way * part).astype(int)
        if abs(x) >= width or abs(y) >= height:
            continue  # a copy that left the patch
        to = np.s_[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
        origin = np.s_[max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)]
        total[to] += pixels[origin]
    mean = (total // (steps + 1)).astype(np.uint8)
    return Image.frombytes("RGBa", patch.size, mean.tobytes()).convert("RGBA")


def paste(
    frame: NDArray[np.uint8],
    owner: NDArray[np.int16],
    patch: Image.Image,
    inside: NDArray[np.bool_],
    corner: NDArray[np.int64],
    index: int,
) -> NDArray[np.bool_]:
    """Blends the part of `patch` that falls into the frame and returns that part of `inside`."""
    x0, y0 = np.maximum(corner, 0)
    x1, y1 = np.minimum(corner + patch.size, owner.shape[::-1])
    if x0 >= x1 or y0 >= y1:
        return np.zeros((0, 0), bool)
    cut = np.s_[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]]
    pixels = np.asarray(patch)[cut].astype(np.float32)
    alpha = pixels[..., 3:] / 255
    view = frame[y0:y1, x0:x1]
    view[:] = (view + (pixels[..., :3] - view) * alpha + 0.5).astype(np.uint8)
    owner[y0:y1, x0:x1][inside[cut]] = index
    return inside[cut]
