"""Which clips a step sees, and how they become a batch.

Everything drawn for clip `index` of the step after `iteration` steps comes from (seed, iteration, index) alone: it does
not depend on the number of processes, of loading workers or of parts of a step, nor on where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rdn_engine.errors import DatasetError
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from training.data.videos import Example, TrainingVideos
from training.settings import Phase, Settings

Key = tuple[int, int]
"""(iterations done, clip of the step)"""

ATTEMPTS = 10
"""Clips drawn in the place of one with damaged frames, before the run stops."""

_PIXELS = InputConfig(channel_order="rgb", mean=(0, 0, 0), std=(1, 1, 1))  # resizing alone
_EPOCHS, _CLIPS, _LOSSES = 1, 2, 3  # so that no two streams of random numbers are the same


@dataclass(frozen=True)
class Clip:
    """Frames of one video, resized."""

    images: list[NDArray[np.uint8]]
    """Each [h, w, 3] RGB of the network's size"""
    boxes: list[NDArray[np.float32]]
    """Of each frame [n, 4] input pixels"""
    labels: list[NDArray[np.int64]]
    """[n] 1 is the first class"""
    ignored: list[NDArray[np.float32]]
    """[m, 4] input pixels"""
    seeds: list[int]
    """Of each frame, for what its losses draw"""
    names: list[str]
    damaged: list[str]
    """Why clips were passed over that would have stood here: the frames that cannot be decoded"""


@dataclass(frozen=True)
class Batch:
    """Clips of one phase; frames of one clip stand together. Smaller images are padded at the right and the bottom."""

    images: Tensor
    """uint8 [N, H, W, 3] RGB"""
    sizes: list[tuple[int, int]]
    """(height, width) of each image"""
    boxes: list[Tensor]
    """Of each image [n, 4] input pixels"""
    labels: list[Tensor]
    """[n] 1 is the first class"""
    ignored: list[Tensor]
    """[m, 4]"""
    seeds: list[int]
    names: list[str]
    damaged: list[str]
    frames_per_clip: int

    def pin_memory(self) -> Batch:
        """As the loader asks for it, so that `to` need not wait."""
        return self._each(lambda t: t.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """The batch on another device.

        Args:
            device: of the result.

        Returns:
            The same batch there; the copy need not have ended.
        """
        return self if device.type == "cpu" else self._each(lambda t: t.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        boxes, labels, ignored = ([change(t) for t in tensors] for tensors in (self.boxes, self.labels, self.ignored))
        return replace(self, images=change(self.images), boxes=boxes, labels=labels, ignored=ignored)


def collate(clips: Sequence[Clip]) -> Batch:
    """Puts clips together, images padded with zeros at the right and at the bottom.

    Args:
        clips: with as many images each.

    Returns:
        Their images, clip after clip.
    """
    frames = [image for clip in clips for image in clip.images]
    sizes = [image.shape[:2] for image in frames]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    images = np.zeros((len(frames), height, width, 3), np.uint8)
    for row, image in zip(images, frames, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    boxes, labels, ignored = (
        [torch.from_numpy(a) for clip in clips for a in getattr(clip, name)] for name in ("boxes", "labels", "ignored")
    )
    seeds, names, damaged = ([s for clip in clips for s in getattr(clip, n)] for n in ("seeds", "names", "damaged"))
    return Batch(torch.from_numpy(images), sizes, boxes, labels, ignored, seeds, names, damaged, len(clips[0].images))


def normalise(images: Tensor, sizes: Sequence[tuple[int, int]], config: InputConfig) -> Tensor:
    """Network inputs from images.

    Args:
        images: uint8 [B, H, W, 3] RGB.
        sizes: (height, width) of each image without its padding, pixels.
        config: says order of channels, mean and deviation.

    Returns:
        Float32 [B, 3, H, W], channels last in memory; zero where an image is padded.
    """
    values = images.float()
    if config.channel_order == "bgr":
        values = values.flip(-1)
    values = (values - values.new_tensor(config.mean)) / values.new_tensor(config.std)
    for image, (height, width) in zip(values, sizes, strict=True):
        image[height:] = 0
        image[:, width:] = 0
    return values.permute(0, 3, 1, 2)


def draw_times(
    rng: np.random.Generator, references: NDArray[np.int64], num_frames: int, window: int, count: int
) -> list[int]:
    """References of one video, of which any two lie at most `window` apart.

    So each of them may serve as the reference, with the others drawn from -T..T around it as its support.

    Args:
        rng: draws them.
        references: frames that may be a reference, growing; one or more.
        num_frames: of the video.
        window: T, in frames.
        count: how many.

    Returns:
        Frames in random order; distinct where there are enough.
    """
    span = min(window + 1, num_frames)
    first = int(rng.integers(0, num_frames - span + 1))
    inside = references[(references >= first) & (references < first + span)]
    if len(inside) < count:
        centre = int(rng.choice(references))
        inside = references[abs(references - centre) <= window // 2]
    return [int(t) for t in rng.choice(inside, count, replace=len(inside) < count)]


def draw_support(
    rng: np.random.Generator, reference: int, num_frames: int, window: int, ahead: int, count: int
) -> list[int]:
    """Support frames from -T..L around a reference, itself included. A still image is its own support.

    Args:
        rng: draws them.
        reference: the frame.
        num_frames: of the video.
        window: T, in frames.
        ahead: L, in frames: how many later ones the model will see.
        count: how many.

    Returns:
        Frames in random order; distinct where there are enough.
    """
    near = np.arange(max(reference - window, 0), min(reference + ahead, num_frames - 1) + 1)
    return [int(t) for t in rng.choice(near, count, replace=len(near) < count)]


class Clips(Dataset[Clip]):
    """`clips[iteration, index]`, drawn from the settings' seed."""

    def __init__(self, videos: TrainingVideos, settings: Settings, input: InputConfig | None = None) -> None:
        """Look at which frames there are.

        Args:
            videos: to draw from.
            settings: of the run.
            input: how frames are resized; as `settings.model` has it by default.

        Raises:
            DatasetError: there is no frame to train on.
        """
        self.videos, self.settings, self._input = videos, settings, input or settings.model.input
        counts = [len(videos.references(v)) for v in range(len(videos))]
        self._usable = np.flatnonzero(counts)
        if not len(self._usable):
            raise DatasetError(
                f"{len(videos)} videos have no frame to train on; wanted one or more with is_vid_train_frame"
            )
        self._ends = np.cumsum(counts)
        self._epoch: tuple[int, int] = (-1, -1)
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, key: Key) -> Clip:
        iteration, index = key
        phase, _ = self.settings.phase_at(iteration)
        rng = np.random.default_rng([self.settings.seed, _CLIPS, iteration, index])
        unit = self._unit(phase, self.settings.clips_before(iteration) + index)
        damaged: list[str] = []
        for _ in range(ATTEMPTS):
            video, times = self._times(rng, phase, unit)
            try:
                return self._read(rng, key, video, times, damaged)
            except DatasetError as error:
                damaged.append(str(error))
                unit = int(rng.integers(self._num_units(phase)))
        raise DatasetError(
            f"{ATTEMPTS} clips drawn one after the other have frames that cannot be read: {damaged[0]}; "
            "python training/data/check.py lists all"
        )

    def _num_units(self, phase: Phase) -> int:
        return int(self._ends[-1]) if phase.references == "first" else len(self._usable)

    def _unit(self, phase: Phase, position: int) -> int:
        """A reference frame (`first`) or a video (`all`): every one is drawn once in an epoch, in random order."""
        count = self._num_units(phase)
        epoch, place = divmod(position, count)
        if self._epoch != (epoch, count):
            self._order = np.random.default_rng([self.settings.seed, _EPOCHS, epoch]).permutation(count)
            self._epoch = epoch, count
        return int(self._order[place])

    def _times(self, rng: np.random.Generator, phase: Phase, unit: int) -> tuple[int, list[int]]:
        dials, count = self.settings.model.dials, phase.frames_per_clip
        if phase.references == "all":
            video = int(self._usable[unit])
            frames = self.videos.num_frames(video)
            return video, draw_times(rng, self.videos.references(video), frames, dials.window, count)
        video = int(np.searchsorted(self._ends, unit, side="right"))
        references = self.videos.references(video)
        t = int(references[unit - int(self._ends[video])])  # counted from the end of this video's
        frames = self.videos.num_frames(video)
        return video, [t, *draw_support(rng, t, frames, dials.window, dials.frames_ahead, count - 1)]

    def _read(self, rng: np.random.Generator, key: Key, video: int, times: Sequence[int], damaged: list[str]) -> Clip:
        data, config, seed = self.settings.data, self._input, self.settings.seed
        mirror = data.flip and rng.random() < 0.5
        colours = rng.permutation(3) if data.exchange_colours else None
        made = [prepare(self.videos.example(video, t), config, mirror, colours) for t in times]
        images, boxes, labels, ignored = (list(part) for part in zip(*made, strict=True))
        names = [self.videos.name(video, t) for t in times]
        return Clip(images, boxes, labels, ignored, seeds_of(seed, key, len(times)), names, damaged)

    @staticmethod
    def collate(clips: Sequence[Clip]) -> Batch:
        """As `collate`."""
        return collate(clips)


def seeds_of(seed: int, key: Key, count: int) -> list[int]:
    """For what the losses of a clip's frames draw.

    Args:
        seed: of the settings.
        key: of the clip.
        count: of its frames.

    Returns:
        One of each frame.
    """
    sequences = [np.random.SeedSequence([seed, _LOSSES, *key, i]) for i in range(count)]
    return [int(sequence.generate_state(1, np.uint64)[0]) for sequence in sequences]


def prepare(
    example: Example, config: InputConfig, mirror: bool, colours: NDArray[np.int64] | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """What training sees of one frame, resized as the runtime does it.

    Args:
        example: the frame with its annotations.
        config: says the size of the network input.
        mirror: swaps left and right.
        colours: [3] an order of the colour channels; None leaves them.

    Returns:
        Image uint8 [h, w, 3], boxes [n, 4], labels [n] from 1 and ignored regions [m, 4]; boxes and regions are in
        network-input pixels.
    """
    height, width = example.image.shape[:2]
    new_height, new_width = config.network_size(height, width)
    image = example.image
    if (new_height, new_width) != (height, width):
        resized = cpu.resize_normalize(image, (new_height, new_width), _PIXELS)
        image = resized.astype(np.uint8).transpose(1, 2, 0)
    if colours is not None:
        image = image[..., colours]
    scale = np.array([new_width / width, new_height / height] * 2, np.float32)
    boxes, ignored = example.boxes, example.ignored
    if mirror:
        image = image[:, ::-1]
        boxes, ignored = (
            np.stack([width - 1 - b[:, 2], b[:, 1], width - 1 - b[:, 0], b[:, 3]], 1) for b in (boxes, ignored)
        )
    return image, boxes * scale, example.labels + 1, ignored * scale


def keys_of(settings: Settings, start: int, rank: int, size: int) -> Iterator[list[Key]]:
    """Which clips a process draws. `accumulate` of its batches make a step.

    Args:
        settings: of the run.
        start: iteration from which on.
        rank: of the process.
        size: processes of the run.

    Yields:
        The keys (iteration, index) of each batch.
    """
    parts = settings.accumulate
    for iteration in range(start, settings.total):
        share = settings.phase_at(iteration)[0].clips // (size * parts)
        for part in range(parts):
            first = (rank * parts + part) * share
            yield [(iteration, index) for index in range(first, first + share)]


def load(clips: Clips, start: int, rank: int, size: int, workers: int, pin: bool) -> Iterator[Any]:
    """The batches of one process.

    Args:
        clips: to draw from.
        start: iteration from which on.
        rank: of the process.
        size: processes of the run.
        workers: processes that make batches; with 0 they are made in this process, when they are asked for.
        pin: copies them to memory from which a GPU reads faster.

    Returns:
        All that are left of the run.
    """
    keys = list(keys_of(clips.settings, start, rank, size))
    loader = DataLoader(
        clips, batch_sampler=keys, num_workers=workers, collate_fn=clips.collate, pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    return iter(loader)
