"""AP50 of settings on annotated videos: their frames are encoded once, and related at each setting."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdn_engine.config import Dials
from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.annotated import Annotated
from rdn_engine.evaluation.boxes import Detected, Truth, label_map
from rdn_engine.evaluation.coco_vid import Dataset, Frame
from rdn_engine.frame import Image
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.results import Detections
from rdn_engine.stream.following import Picture
from rdn_engine.tuning.replay import Kept, detect, encode

Array = NDArray[Any]


class Accuracy:
    """Scores settings of the models of one or more bundles on the same videos."""

    def __init__(self, annotated: Annotated, read: Callable[[Frame], Image], folder: Path) -> None:
        """Nothing is encoded yet.

        Args:
            annotated: videos.
            read: gives the picture of a frame, uint8 [H, W, 3] RGB.
            folder: holds the encodings, N (2 + D) + K (2 P + 1) D numbers a frame, and a small picture of each.
        """
        self._annotated, self._read, self._folder = annotated, read, folder

    @property
    def frames(self) -> int:
        """That every setting is scored on."""
        return len(self._annotated.dataset.frames)

    def pictures(self, most: int) -> list[Image]:
        """The first frames of the first video, of one size.

        Args:
            most: frames.
        """
        _, frames = next(self._annotated.videos())
        same = [one for one in frames if (one.height, one.width) == (frames[0].height, frames[0].width)]
        return [self._read(one) for one in same[:most]]

    def __call__(
        self, bundle: int, model: HostModel, settings: Sequence[Dials], report: Callable[[str], None]
    ) -> list[float]:
        """AP50 of each setting, percent, in the VID protocol.

        Args:
            bundle: that the model is of: its encodings are kept.
            model: in whatever way it runs.
            settings: dials, with N and K of the model's own at most.
            report: is called with what is done now.

        Raises:
            DatasetError: for a picture that cannot be read, and classes that are not the model's.
        """
        from rdn_engine.evaluation.average_precision import match_class, mean

        names = model.config.class_names
        truth, labels = Truth.of(self._annotated.dataset), label_map(self._annotated.dataset, names)
        found: list[dict[int, Detections]] = [{} for _ in settings]
        for number, (name, frames) in enumerate(self._annotated.videos()):
            report(f"accuracy of {len(settings)} settings: {name}")
            encoded = self._encoded(self._folder / f"{bundle}-{number}.npz", model, frames)
            for dials, results in zip(settings, found, strict=True):
                given = detect(model, encoded, dials)
                results |= {frame.id: result for frame, result in zip(frames, given, strict=True)}
        scored = []
        for results in found:
            detected = Detected.of(results, self._annotated.dataset, names)
            scored.append(mean(match_class(truth, detected, label).ap for label in labels.tolist()) or 0.0)
        return scored

    def _encoded(self, place: Path, model: HostModel, frames: Sequence[Frame]) -> list[Kept]:
        """Of one video; kept in a file."""
        if not place.exists():
            made = encode(model, map(self._read, frames), model.config.dials)
            arrays: dict[str, Any] = {
                f"{t}.{name}": a for t, one in enumerate(made) for name, a in _arrays(one).items()
            }
            np.savez(place, **arrays)
            return made
        kept: list[dict[str, Array]] = [{} for _ in frames]
        with np.load(place) as held:
            for key in held.files:
                t, _, name = key.partition(".")
                kept[int(t)][name] = held[key]
        return [_kept(arrays) for arrays in kept]


def _arrays(frame: Kept) -> dict[str, Array]:
    encoded = {name: array for name, array in vars(frame.encoded).items() if array is not None}
    return encoded | {"colours": frame.picture.colours, "sides": np.array([*frame.picture.side, *frame.size])}


def _kept(arrays: dict[str, Array]) -> Kept:
    tall, wide, height, width = arrays.pop("sides").tolist()
    picture = Picture(arrays.pop("colours"), (tall, wide))
    return Kept(EncodedFrame(**arrays), picture, (height, width))


def part(annotated: Annotated, most: int) -> Annotated:
    """Whole videos, drawn by a fixed seed, with so many frames at most; one at least.

    Args:
        annotated: videos.
        most: frames.

    Raises:
        DatasetError: where there is none.
    """
    videos = list(annotated.videos())
    if not videos:
        raise DatasetError(f"{annotated.name} has no frame; wanted one annotated video or more")
    random.Random(0).shuffle(videos)
    taken: list[Frame] = []
    for _, frames in videos:
        if not taken or len(taken) + len(frames) <= most:
            taken += frames
    ids = {frame.id for frame in taken}
    whole = annotated.dataset
    return Annotated(
        annotated.name,
        Dataset(
            whole.categories,
            whole.videos,
            [frame for frame in whole.frames if frame.id in ids],
            [one for one in whole.annotations if one.image_id in ids],
        ),
    )
