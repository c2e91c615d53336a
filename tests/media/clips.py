"""Small videos and images that tests make themselves, and what they should look like."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from rdn_engine.frame import Frame
from rdn_engine.media.source import open_source

HEIGHT, WIDTH, FPS = 64, 96, 25

LOSSY = 12
"""Grey levels: mean error that coding leaves at most; swapped channels or a wrong turn make more than 40"""


def picture(t: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """[H, W, 3]: red grows to the right, green downwards, blue tells the time."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[..., 2] = 8 * t
    return image


def encode(
    path: Path,
    codec: str = "libx264",
    frames: int = 20,
    *,
    rotation: float | None = None,
    matrix: tuple[int, ...] | None = None,
    grain: int = 0,
    **options: str,
) -> Path:
    """A video of `picture`s, with B-pictures where the codec's options say so.

    `rotation` is in degrees, `matrix` the nine numbers of a display matrix; `grain` is the strength of a noise that
    makes every coded picture a large one.
    """
    rng = np.random.default_rng(0)
    # With several threads the encoder's choices, and so its bytes, change from run to run.
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"threads": "1", **options})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for t in range(frames):
            noise = rng.integers(0, grain + 1, (HEIGHT, WIDTH, 1))
            image = np.clip(picture(t) + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def coded_picture(path: Path, nth: int) -> tuple[int, int]:
    """Place and size in the file, bytes."""
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][nth]
        return packet.pos, packet.size


def damage(path: Path, nth: int, keep: int = 0) -> None:
    """Overwrite the nth coded picture with noise, all but its first `keep` bytes (at most half)."""
    start, size = coded_picture(path, nth)
    start, end = start + min(keep, size // 2), start + size
    data = bytearray(path.read_bytes())
    data[start:end] = np.random.default_rng(0).integers(0, 256, end - start, dtype=np.uint8).tobytes()
    path.write_bytes(data)


def read(source: object) -> tuple[list[Frame], int]:
    with open_source(source) as video:  # type: ignore[arg-type]
        return list(video), video.skipped


def save_images(folder: Path, names: list[str]) -> list[np.ndarray]:
    images = [picture(t) for t in range(len(names))]
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return images
