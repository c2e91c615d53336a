"""Batches of clips: a few frames of one window, drawn afresh for every step (the paper's temporal dropout)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdn_engine.config import InputConfig
from training.data.synthetic import SyntheticVideos


@dataclass(frozen=True)
class Batch:
    images: Tensor
    """[clips * frames, 3, H, W] normalised network inputs, frames of one clip together"""
    boxes: list[Tensor]
    """Of each image [n, 4] input pixels"""
    labels: list[Tensor]
    """[n] 1 is the first class"""
    frames_per_clip: int


def draw_times(rng: np.random.Generator, num_frames: int, window: int, count: int) -> list[int]:
    """`count` distinct frames, in random order, of which any two lie at most `window` apart.

    So each of them may serve as the reference, with the others drawn from -T..T around it as its support.
    """
    span = min(window + 1, num_frames)
    first = int(rng.integers(0, num_frames - span + 1))
    return [first + int(t) for t in rng.choice(span, count, replace=False)]


def normalise(frames: Tensor, config: InputConfig) -> Tensor:
    """uint8 [B, H, W, 3] RGB of the network's size -> [B, 3, H, W]"""
    images = frames.float()
    if config.channel_order == "bgr":
        images = images.flip(-1)
    return ((images - torch.tensor(config.mean)) / torch.tensor(config.std)).permute(0, 3, 1, 2)


def draw_batch(
    rng: np.random.Generator,
    videos: SyntheticVideos,
    config: InputConfig,
    window: int,
    clips: int,
    frames_per_clip: int,
) -> Batch:
    """Clips of different videos; each is mirrored or not and its colours exchanged, all of its frames alike."""
    frames, boxes, labels = [], [], []
    for index in rng.choice(len(videos), clips, replace=False):
        video = videos[int(index)]
        mirror, colours = rng.random() < 0.5, rng.permutation(3)
        width = video.frames.shape[2]
        for t in draw_times(rng, len(video.frames), window, frames_per_clip):
            frame, box = video.frames[t][..., colours], video.boxes[t]
            if mirror:
                frame = frame[:, ::-1]
                box = np.stack([width - 1 - box[:, 2], box[:, 1], width - 1 - box[:, 0], box[:, 3]], 1)
            frames.append(torch.from_numpy(frame.copy()))
            boxes.append(torch.from_numpy(box))
            labels.append(torch.from_numpy(video.labels[t] + 1))
    return Batch(normalise(torch.stack(frames), config), boxes, labels, frames_per_clip)
