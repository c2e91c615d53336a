"""Small videos and images that tests make themselves, and what they should look like."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

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
    image[..., 2] = 8 * t % 256
    return image


def encode(
    path: Path, codec: str = "libx264", frames: int = 20, *, grain: int = 0, rate: int = FPS, **options: Any
) -> Path:
    """A video of `picture`s; `grain` is the strength of a noise that makes every coded picture a large one.

    Other options as `encode_pictures` has them.
    """
    rng = np.random.default_rng(0)
    noise = rng.integers(0, grain + 1, (frames, HEIGHT, WIDTH, 1))
    pictures = [np.clip(picture(t) + noise[t], 0, 255).astype(np.uint8) for t in range(frames)]
    return encode_pictures(path, pictures, codec, rate=rate, **options)


def encode_pictures(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    rate: int = FPS,
    rotation: float | None = None,
    matrix: tuple[int, ...] | None = None,
    aspect: Fraction | None = None,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video of pictures [H, W, 3].

    `rotation` is in degrees, `matrix` the nine numbers of a display matrix, `aspect` a pixel's width over its height.
    The rest are the codec's own options.
    """
    # With several threads the encoder's choices, and so its bytes, change from run to run.
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", **options})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for t, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, rate)
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


B_PICTURES = {"bf": "2", "b-adapt": "0", "b_strategy": "0"}
"""Options of libx264, libx265 and FFmpeg's MPEG encoders for B-pictures in a fixed pattern."""


def pack_b_pictures(path: Path, frames: int = 21) -> Path:
    """An AVI of `picture`s as DivX and Xvid wrote them.

    A B-picture shares the packet of the one it is predicted from, and the packet after it is a placeholder.
    """
    unpacked = encode(path.with_suffix(".unpacked.avi"), "mpeg4", frames, b="4M", g="300", bf="1", b_strategy="0")
    with av.open(str(unpacked)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        extradata = container.streams.video[0].codec_context.extradata or b""
    is_b = [packet[packet.index(b"\0\0\1\xb6") + 4] >> 6 == 2 for packet in packets]
    # A VOP of type P that is not coded (ISO/IEC 14496-2, section 6.2.5): its time takes 5 bits at 25 pictures a second.
    placeholder = b"\0\0\1\xb6" + int("0101000011001111", 2).to_bytes(2, "big")
    packed = []
    for number, packet in enumerate(packets):
        if is_b[number]:
            packed[-1] += packet
            packed.append(placeholder)
        else:
            packed.append(packet)
    mark = b"\0\0\1\xb2DivX503b1393p\0"
    start = packed[0].index(b"\0\0\1\xb6")
    packed[0] = packed[0][:start] + mark + packed[0][start:]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.extradata, stream.codec_context.codec_tag = extradata + mark, "XVID"
        container.start_encoding()
        for number, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, FPS), number == 0
            container.mux(packet)
    return path


def remux(source: Path, target: Path, *, shift: int = 0) -> Path:
    """The same coded pictures in another container, `shift` pictures later."""
    with av.open(str(source)) as read_from, av.open(str(target), "w") as write_to:
        stream = read_from.streams.video[0]
        copy = write_to.add_stream_from_template(stream)
        assert stream.time_base is not None
        for packet in read_from.demux(stream):
            if packet.dts is None:
                continue
            ticks = round(shift / FPS / stream.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, copy
            write_to.mux(packet)
    return target
