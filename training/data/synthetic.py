"""Annotated videos drawn on the fly: patterned shapes over a moving background, often blurred, dimmed or hidden.

A class is a shape and a pattern (`CLASS_NAMES`); colours are free. Objects stop and go, from almost still to fast, and
blur with their own motion: that hides the pattern, as an occluder hides the shape, for several frames at a time, so
that one frame is often not enough where its neighbours are. Needs no torch.

`python -m training.data.synthetic clip.mp4` writes a clip of the `demo` split, which no training sees.
"""

from __future__ import annotations

import argparse
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rdn_engine.kernels.cpu.arrays import Float
from training.arguments import given_path
from training.data.drawing import CLASS_NAMES, draw_background, draw_sprite, paste, smeared, turned
from training.data.occlusion import Passer
from training.data.weather import Weather, episodes

MIN_VISIBLE = 0.3
"""An object of which less than this part is seen (hidden, or outside the frame) is not annotated."""

_HERD = 0.6
"""Part of a video's objects that look like an earlier one of it, each with a size, a path and a blur of its own"""

_PASSED = 0.7
"""Part of the objects in front of which something passes, where a video hides any"""

_MARGIN = 40  # pixels of background around the frame for the camera to move in


@dataclass(frozen=True)
class Video:
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB"""
    boxes: list[Float]
    """Of each frame [n, 4] xyxy in pixels, the last pixel included (width x2 - x1 + 1), cut at the frame."""
    labels: list[NDArray[np.int64]]
    """[n] index into CLASS_NAMES"""
    track_ids: list[NDArray[np.int64]]
    """[n] the same number for the same object in every frame"""
    strength: Float
    """[T] of the degradation of the whole frame, 0 (clear) to 1"""


@dataclass
class SyntheticVideos:
    """`videos[i]` is drawn from (seed, split, i) alone, and kept."""

    split: str = "train"
    num_videos: int = 300
    num_frames: int = 24
    size: tuple[int, int] = (192, 128)
    """(width, height) of a frame, pixels"""
    seed: int = 0
    hidden: tuple[int, int] | None = None
    """(shortest, longest) time in frames that something passes in front of objects that are in sight before and after,
    and hides them wholly; None for nothing of that kind. There are no more objects in a long video than in a short one
    then, so that it is clear what hides them."""
    static_camera: bool = False
    """Whether the view stays where it begins; everything else is drawn the same"""
    _kept: dict[int, Video] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, index: int) -> Video:
        if not 0 <= index < self.num_videos:
            raise IndexError(f"video {index}; wanted 0..{self.num_videos - 1}")
        if index not in self._kept:
            rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
            self._kept[index] = render_video(rng, self.num_frames, *self.size, self.hidden, self.static_camera)
        return self._kept[index]


def render_video(
    rng: np.random.Generator,
    num_frames: int,
    width: int,
    height: int,
    hidden: tuple[int, int] | None = None,
    static_camera: bool = False,
) -> Video:
    """Draws one video.

    Args:
        rng: draws everything in it; the same numbers make the same video.
        num_frames: 1 or more.
        width: of a frame in pixels.
        height: of a frame in pixels.
        hidden: as `SyntheticVideos.hidden`.
        static_camera: whether the view stays where it begins.

    Returns:
        Frames and their annotations.
    """
    canvas = draw_background(rng, width + 2 * _MARGIN, height + 2 * _MARGIN)
    camera = _camera_path(rng, num_frames)
    if static_camera:
        camera[:] = camera[0]
    crowd = max(1, round(num_frames / 36)) if hidden is None else 1
    looks = _draw_looks(rng, int(rng.integers(4, 7)) * crowd)
    things = [_Thing.draw(rng, look, num_frames, width, height) for look in looks]
    weather = Weather.draw(rng, num_frames)
    if hidden is not None:
        things = [thing.hidden(rng, num_frames, (width, height), hidden) for thing in things]
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    video = Video(frames, [], [], [], weather.strength)
    for t in range(num_frames):
        x, y = camera[t]
        frame = canvas[y : y + height, x : x + width].copy()
        owner = np.full((height, width), -1, np.int16)
        placed = [thing.paste(frame, owner, i, t) for i, thing in enumerate(things)]
        _annotate(video, things, placed, owner)
        frames[t] = weather.apply(rng, frame, t)
    return video


def _draw_looks(rng: np.random.Generator, count: int) -> list[_Look]:
    looks: list[_Look] = []
    for _ in range(count):
        if looks and rng.random() < _HERD:
            looks.append(looks[rng.integers(len(looks))])
        else:
            label = int(rng.integers(len(CLASS_NAMES))) if rng.random() < 0.8 else None
            looks.append(_Look(label, int(rng.integers(2**32))))
    return looks


def _annotate(video: Video, things: list[_Thing], placed: list[_Placed | None], owner: NDArray[np.int16]) -> None:
    seen = np.bincount(owner.ravel() + 1, minlength=len(things) + 1)[1:]
    rows = [
        i
        for i, p in enumerate(placed)
        if p is not None and things[i].label is not None and seen[i] >= MIN_VISIBLE * p.area
    ]
    video.boxes.append(np.array([placed[i].box for i in rows], np.float32).reshape(-1, 4))  # type: ignore[union-attr]
    video.labels.append(np.array([things[i].label for i in rows], np.int64))
    video.track_ids.append(np.array(rows, np.int64))


@dataclass(frozen=True)
class _Look:
    """What the animals of a herd have in common: class, shape and colours."""

    label: int | None
    """None of a plain shape that is no object"""
    seed: int

    def sprite(self, size: float) -> Image.Image:
        return draw_sprite(np.random.default_rng(self.seed), self.label, size)


@dataclass(frozen=True)
class _Placed:
    box: tuple[int, int, int, int]
    area: int
    """Pixels of the whole object, inside the frame or not."""


@dataclass(frozen=True)
class _Thing:
    """An object (label 0..), or a plain shape that is none (label None), and its path through the video."""

    label: int | None
    sprite: Image.Image
    size: float
    centre: Float
    velocity: Float
    """[2] pixels a frame, the mean over its stops and goes"""
    pulse: Float
    """[2] radians a frame and phase of its stops and goes"""
    exposure: float
    """It is blurred over the way that it makes in this many frames: more than one, as where only some were kept"""
    middle: float
    angle: float
    spin: float
    growth: float
    occluder: _Occluder | None
    passer: Passer | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator, look: _Look, num_frames: int, width: int, height: int) -> _Thing:
        size = float(np.exp(rng.uniform(np.log(24), np.log(64))))
        heading = rng.uniform(0, 2 * np.pi)
        # Turning and growing change the box too: what moves little does little of either.
        speed = float(np.exp(rng.uniform(np.log(0.1), np.log(6))))
        liveliness = min(speed / 2, 1.0)
        hidden = episodes(rng, num_frames, 0.15, (5, 9))
        return cls(
            label=look.label,
            sprite=look.sprite(size),
            size=size,
            centre=(rng.uniform(0.12, 0.88, 2) * (width, height)).astype(np.float32),
            velocity=np.array([np.cos(heading), np.sin(heading)], np.float32) * np.float32(speed),
            pulse=np.array([2 * np.pi / rng.uniform(11, 17), rng.uniform(0, 2 * np.pi)], np.float32),
            exposure=rng.uniform(2, 4),
            middle=float(rng.uniform(0, num_frames)),
            angle=rng.uniform(0, 360),
            spin=rng.uniform(-5, 5) * liveliness,
            growth=rng.uniform(-0.3, 0.3) * liveliness,
            occluder=_Occluder.draw(rng, size, hidden) if hidden.any() else None,
        )

    def hidden(
        self, rng: np.random.Generator, num_frames: int, frame: tuple[int, int], length: tuple[int, int]
    ) -> _Thing:
        """The same with something that passes in front of it, where it is in sight for long enough."""
        smear = float(np.abs(self.velocity).max()) * self.exposure
        side = int(self.size * (1 + abs(self.growth)) + smear) + 2
        passer = Passer.draw(
            rng, self.position, side=side, middle=self.middle, num_frames=num_frames, size=frame, length=length
        )
        return self if self.label is None or rng.random() > _PASSED else replace(self, passer=passer)

    def position(self, t: float) -> Float:
        """[2] its middle at time t, pixels of the frame"""
        since = t - self.middle
        pace, phase = self.pulse
        # Its speed swings between a tenth and nearly twice of the mean.
        way = since - 0.9 / pace * np.cos(pace * t + phase)
        # Faster with the distance from its middle time, so that a long video does not fill up with slow objects.
        middle: Float = self.centre + self.velocity * way * (1 + (since / 24) ** 4)
        return middle

    def paste(self, frame: NDArray[np.uint8], owner: NDArray[np.int16], index: int, t: int) -> _Placed | None:
        """Draws this object of time t into `frame`, its number into `owner`; None where it is out of sight."""
        since = t - self.middle
        where = self.position(t)
        scale = 1 + self.growth * np.sin(since / 9)
        half = int(self.size * scale * 0.75) + 2
        height, width = owner.shape
        if not (-half < where[0] < width + half and -half < where[1] < height + half):
            return None
        patch = turned(self.sprite, where, half, self.angle + self.spin * since, scale)
        inside = np.asarray(patch.getchannel("A")) > 127
        patch = smeared(patch, (self.position(t + 0.5) - self.position(t - 0.5)) * self.exposure)
        corner = np.floor(where).astype(int) - half
        visible = paste(frame, owner, patch, inside, corner, index)
        if self.occluder is not None:
            self.occluder.paste(frame, owner, where, t)
        if self.passer is not None:
            self.passer.paste(frame, owner, where, t)
        if not visible.any():
            return None
        ys, xs = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        left, top = np.maximum(corner, 0)
        return _Placed((left + xs[0], top + ys[0], left + xs[-1], top + ys[-1]), int(inside.sum()))


@dataclass(frozen=True)
class _Occluder:
    """A patch of something that passes over its object while `hidden` is above 0."""

    sprite: Image.Image
    hidden: Float
    start: Float
    end: Float

    @classmethod
    def draw(cls, rng: np.random.Generator, size: float, hidden: Float) -> _Occluder:
        side = max(int(size * rng.uniform(0.75, 1.05)), 12)
        image = Image.fromarray(draw_background(rng, side, side, clutter=0))
        mask = Image.new("L", (side, side), 255)
        image.putalpha(mask)
        start, end = rng.uniform(-0.45, 0.45, (2, 2)) * size
        return cls(image, hidden, start.astype(np.float32), end.astype(np.float32))

    def paste(self, frame: NDArray[np.uint8], owner: NDArray[np.int16], where: Float, t: int) -> None:
        if self.hidden[t] <= 0:
            return
        part = t / len(self.hidden)
        offset = self.start * (1 - part) + self.end * part
        corner = np.floor(where + offset).astype(int) - self.sprite.width // 2
        paste(frame, owner, self.sprite, np.ones(self.sprite.size[::-1], bool), corner, -1)


def _camera_path(rng: np.random.Generator, num_frames: int) -> NDArray[np.int64]:
    """[T, 2] left and top of the view in the background; never leaves its margin."""
    t = np.arange(num_frames)[:, None]
    phase, pace = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.02, 0.09, 2)
    return np.round(_MARGIN + (_MARGIN - 2) * rng.uniform(0.2, 1, 2) * np.sin(pace * t + phase)).astype(np.int64)


def write_clip(
    path: str | Path,
    split: str = "demo",
    index: int = 0,
    num_frames: int = 120,
    size: tuple[int, int] = (192, 128),
    magnify: int = 1,
    fps: int = 24,
    seed: int = 0,
) -> Video:
    """Draws one video into a file. No training split shares its seeds.

    Args:
        path: of the video file.
        split: names the seeds.
        index: of the video in its split.
        num_frames: 1 or more.
        size: (width, height) of what is drawn, pixels.
        magnify: the file's frames are that many times larger than what is drawn, so that there is room to annotate
            them.
        fps: frames a second.
        seed: of the split.

    Returns:
        What was drawn.
    """
    video = SyntheticVideos(split, index + 1, num_frames, size, seed)[index]
    width, height = size[0] * magnify, size[1] * magnify
    # Here, because frames are drawn where there is no video library, too.
    from rdn_engine.media.writer import VideoWriter

    with VideoWriter(path, fps) as writer:
        for image in video.frames:
            writer.write(np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)))
    return video


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic clip as an H.264 file.")
    parser.add_argument("output", type=given_path)
    parser.add_argument("--index", type=int, default=0, help="which clip of the demo split")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--magnify", type=int, default=1, help="how many times larger than drawn")
    arguments = parser.parse_args()
    write_clip(arguments.output, index=arguments.index, num_frames=arguments.frames, magnify=arguments.magnify)


if __name__ == "__main__":
    main()
