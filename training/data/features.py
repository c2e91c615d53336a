"""What a frozen detector makes of the training videos, computed once and kept on disk: a file a video.

A cache is of one detector, one preprocessing and one number of proposals, and says so in `facts.json`. Videos that are
there are not computed again, so that a run that was stopped goes on; files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rdn_engine.errors import DatasetError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder
from training.data.sampling import Clips, Key, seeds_of
from training.data.videos import TrainingVideos
from training.settings import Settings

FACTS = "facts.json"
VERSION = 2
"""Raised where the same detector, settings and data give other files"""


@dataclass(frozen=True)
class FeatureFrame:
    """One frame: its proposals, best first, and its annotations; boxes in network-input pixels."""

    boxes: Tensor
    """[n, 4]"""
    objectness: Tensor
    """[n]"""
    features: Tensor
    """[n, attached.features]"""
    truth: Tensor
    """[m, 4]"""
    labels: Tensor
    """[m] 1 is the first class"""
    ignored: Tensor
    """[i, 4]"""


@dataclass(frozen=True)
class FeatureBatch:
    """Clips of one phase; frames of one clip stand together."""

    frames: list[FeatureFrame]
    seeds: list[int]
    names: list[str]
    damaged: list[str]
    frames_per_clip: int

    def pin_memory(self) -> FeatureBatch:
        """As the loader asks for it, so that `to` need not wait."""
        return self._each(lambda t: t.pin_memory())

    def to(self, device: torch.device) -> FeatureBatch:
        """The batch on another device."""
        return self if device.type == "cpu" else self._each(lambda t: t.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> FeatureBatch:
        frames = [FeatureFrame(**{name: change(t) for name, t in vars(frame).items()}) for frame in self.frames]
        return FeatureBatch(frames, self.seeds, self.names, self.damaged, self.frames_per_clip)


class FeatureCache:
    """The videos of a training as a detector sees them."""

    def __init__(self, folder: Path, detector_sha256: str, settings: Settings) -> None:
        """Take up the cache in a folder, or begin it.

        Args:
            folder: of the cache; it is made if need be.
            detector_sha256: of the detector's graph.
            settings: of the run; input, `attached` and N of its model, and its data.

        Raises:
            DatasetError: the cache is of something else; it says of what.
        """
        model, dials = settings.model.to_dict(), settings.model.dials
        self.folder, self._input = folder, settings.model.input
        self._most = max(dials.num_reference, dials.num_support)
        facts = {
            "version": VERSION,
            "encoder": detector_sha256,
            "input": model["input"],
            "attached": model["attached"],
            "proposals": self._most,
            "data": _digest(settings),
        }
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FACTS
        if path.exists():
            _refuse_others(path, facts)
        else:
            part = _part(path)
            part.write_text(json.dumps(facts, indent=2), encoding="utf-8")
            os.replace(part, path)

    def fill(
        self, videos: TrainingVideos, encoder: AttachedEncoder, report: Callable[[int], None] = lambda video: None
    ) -> None:
        """Compute what is not there yet.

        Args:
            videos: of the training.
            encoder: the detector.
            report: is called with the number of each video before it is computed.

        Raises:
            DatasetError: a frame that cannot be read, or features that half precision does not hold.
            RDNError: of the detector; its subclass says which.
        """
        for video in range(len(videos)):
            rows, features = self._files(video)
            if rows.exists():
                continue
            report(video)
            made = [self._of_frame(videos, encoder, video, t) for t in range(videos.num_frames(video))]
            arrays: dict[str, NDArray[Any]] = {name: np.concatenate([f[name] for f in made]) for name in _GROUPS}
            for name, first in (("proposals", "boxes"), ("objects", "truth"), ("regions", "ignored")):
                arrays[name] = np.array([len(frame[first]) for frame in made])
            np.save(_part(features), np.concatenate([frame["features"] for frame in made]))
            os.replace(_part(features), features)
            # Last: where this one is, the video is whole.
            np.savez(_part(rows), **arrays)  # type: ignore[arg-type]
            os.replace(_part(rows), rows)

    def frame(self, video: int, t: int) -> FeatureFrame:
        """One frame of `fill`.

        Args:
            video: its number.
            t: frame, from 0.

        Raises:
            DatasetError: a file is damaged or gone; deleted, it is computed anew.
        """
        rows, features = self._files(video)
        try:
            with np.load(rows, allow_pickle=False) as archive:
                spans = {}
                for group in ("proposals", "objects", "regions"):
                    counts = archive[group]
                    first = int(counts[:t].sum())
                    spans[group] = slice(first, first + int(counts[t]))
                parts = {name: archive[name][spans[group]] for name, group in _GROUPS.items()}
            # Mapped, so that of a long video no more than these rows is read.
            parts["features"] = np.load(features, mmap_mode="r", allow_pickle=False)[spans["proposals"]]
            if len(parts["features"]) != len(parts["boxes"]):
                raise ValueError(f"{features.name} has fewer rows")
        except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{rows} cannot be read ({error}); deleted, it is computed anew") from error
        kinds = {"labels": np.int64}
        return FeatureFrame(**{n: torch.from_numpy(a.astype(kinds.get(n, np.float32))) for n, a in parts.items()})

    def _files(self, video: int) -> tuple[Path, Path]:
        return self.folder / f"{video:06d}.npz", self.folder / f"{video:06d}.npy"

    def _of_frame(
        self, videos: TrainingVideos, encoder: AttachedEncoder, video: int, t: int
    ) -> dict[str, NDArray[Any]]:
        example, config = videos.example(video, t), self._input
        height, width = example.image.shape[:2]
        (found,) = encoder.candidates(preprocess.network_input(example.image, config, 1)[None])
        rows = encoder.select(found, self._most)
        features = encoder.pool(found, rows)
        with np.errstate(over="ignore"):
            half = features.astype(np.float16)
        if not np.isfinite(half).all():
            raise DatasetError(
                f"{videos.name(video, t)}: the detector's features reach {np.abs(features).max():g}; wanted at most "
                "65504, which half precision holds"
            )
        return {
            "boxes": found.boxes[rows],
            "objectness": found.score[rows],
            "features": half,
            "truth": config.on_network(example.boxes, height, width),
            "labels": example.labels + 1,
            "ignored": config.on_network(example.ignored, height, width),
        }


_GROUPS = {
    "boxes": "proposals",
    "objectness": "proposals",
    "truth": "objects",
    "labels": "objects",
    "ignored": "regions",
}
"""Array of a file -> the array that says how many rows of it each frame has."""


class FeatureClips(Clips):
    """As Clips, of features in place of images."""

    def __init__(self, videos: TrainingVideos, settings: Settings, cache: FeatureCache) -> None:
        super().__init__(videos, settings)
        self._cache = cache

    def _read(self, rng: np.random.Generator, key: Key, video: int, times: Sequence[int], damaged: list[str]) -> Any:
        frames = [self._cache.frame(video, t) for t in times]
        names = [self.videos.name(video, t) for t in times]
        return FeatureBatch(frames, seeds_of(self.settings.seed, key, len(times)), names, damaged, len(times))

    @staticmethod
    def collate(clips: Sequence[FeatureBatch]) -> FeatureBatch:  # type: ignore[override]
        """Clip after clip."""
        joined = {
            name: [x for c in clips for x in getattr(c, name)] for name in ("frames", "seeds", "names", "damaged")
        }
        return FeatureBatch(**joined, frames_per_clip=clips[0].frames_per_clip)


def _digest(settings: Settings) -> str:
    """Of what decides which frame a file is of: the sources, and the annotations in them."""
    digest = hashlib.sha256(json.dumps(settings.to_plain()["data"]["train"], sort_keys=True).encode())
    for source in settings.data.train:
        if source.annotations:
            digest.update(Path(source.annotations).read_bytes())
    return digest.hexdigest()


def _refuse_others(path: Path, facts: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error}); wanted the facts of a cache of features") from error
    if found == facts:
        return
    there = found if isinstance(found, dict) else {}
    other = [
        f"{name} is {there.get(name, 'missing')}, wanted {facts.get(name, 'none')}"
        for name in dict.fromkeys([*facts, *there])
        if name not in there or name not in facts or there[name] != facts[name]
    ]
    raise DatasetError(
        f"{path.parent} holds features of another detector, other data or another version: {'; '.join(other)}; choose "
        "another folder (features: in the settings), or delete this one"
    )


def _part(path: Path) -> Path:
    """Where a file is written before it takes its name."""
    return path.with_name(f".{os.getpid()}.{path.name}")
