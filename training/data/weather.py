"""What spoils frames, for several of them in a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from rdn_engine.kernels.cpu.arrays import Float


@dataclass(frozen=True)
class Weather:
    """What happens to whole frames, several in a row: defocus, motion blur, or low contrast with noise."""

    kind: list[str]
    strength: Float
    heading: Float
    """[T, 2] of the motion blur, unit length"""

    @classmethod
    def draw(cls, rng: np.random.Generator, num_frames: int) -> Weather:
        """Draws the weather of one video.

        Args:
            rng: draws it.
            num_frames: of the video.

        Returns:
            Kind, strength and heading of each frame.
        """
        strength = np.zeros(num_frames, np.float32)
        heading = np.zeros((num_frames, 2), np.float32)
        kind = ["clear"] * num_frames
        t = int(rng.integers(-6, 8))
        while t < num_frames:
            length = int(rng.integers(4, 9))
            name = ("defocus", "motion", "dim")[rng.integers(3)]
            angle = rng.uniform(0, np.pi)
            for i in range(max(t, 0), min(t + length, num_frames)):
                strength[i] = _ramp(i - t, length)
                kind[i] = name
                heading[i] = np.cos(angle), np.sin(angle)
            t += length + int(rng.integers(6, 13))
        return cls(kind, strength, heading)

    def apply(self, rng: np.random.Generator, frame: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        """One frame as the camera sees it.

        Args:
            rng: draws the noise.
            frame: uint8 [H, W, 3] RGB.
            t: the frame's place in the video.

        Returns:
            uint8 [H, W, 3] RGB.
        """
        strength = float(self.strength[t])
        noise, contrast = 4.0, 1.0
        if self.kind[t] == "defocus":
            frame = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(1 + 3 * strength)))
        elif self.kind[t] == "motion":
            frame = _motion_blur(frame, self.heading[t], 4 + 14 * strength)
        elif self.kind[t] == "dim":
            contrast, noise = 1 - 0.75 * strength, 4 + 14 * strength
        grain = rng.standard_normal(frame.shape, np.float32)
        grain *= noise
        grain += frame.astype(np.float32) * contrast + 70 * (1 - contrast)
        return np.clip(grain, 0, 255).astype(np.uint8)


def episodes(rng: np.random.Generator, num_frames: int, share: float, length: tuple[int, int]) -> Float:
    """Episodes that come and go.

    Args:
        rng: draws them.
        num_frames: T of the video.
        share: about which part of the video they fill, 0..1.
        length: (shortest, longest) episode in frames.

    Returns:
        Strength [T] in 0..1.
    """
    strength = np.zeros(num_frames, np.float32)
    mean = sum(length) / 2
    t = int(rng.exponential(mean * (1 - share) / share))
    while t < num_frames:
        n = int(rng.integers(length[0], length[1] + 1))
        for i in range(t, min(t + n, num_frames)):
            strength[i] = _ramp(i - t, n)
        t += n + 3 + int(rng.exponential(mean * (1 - share) / share))
    return strength


def _ramp(i: int, length: int) -> float:
    """Half strength at both ends of an episode, full in between."""
    return 0.5 if i in (0, length - 1) else 1.0


def _motion_blur(frame: NDArray[np.uint8], heading: Float, length: float) -> NDArray[np.uint8]:
    """The mean of copies shifted along `heading` over `length` pixels; the border repeats."""
    reach = int(np.ceil(length / 2))
    wide = np.pad(frame, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    steps = np.linspace(-length / 2, length / 2, max(int(length * 0.7), 2))
    shifts = np.round(steps[:, None] * heading).astype(int) + reach
    height, width = frame.shape[:2]
    total = np.zeros(frame.shape, np.uint16)
    for x, y in shifts:
        total += wide[y : y + height, x : x + width]
    return (total // len(shifts)).astype(np.uint8)
