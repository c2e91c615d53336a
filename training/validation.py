"""Validation within a run: AP50 of the model as it stands, by the protocol of export/evaluate.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.boxes import Truth, label_map
from training.data.synthetic import SyntheticVideos
from training.data.videos import Source
from training.evaluation.detect import RunModel, evaluate
from training.evaluation.videos import AnnotatedVideos, from_files, from_synthetic
from training.model.fcos import SmallFCOS
from training.model.rdn import RDN

METRIC = "AP50"
"""ImageNet VID's protocol, percent"""


def open_validation(sources: Sequence[Source], class_names: tuple[str, ...]) -> list[AnnotatedVideos]:
    """Opens the data of the validation before the first step, so that hours later nothing is found wrong with it.

    Args:
        sources: of the settings.
        class_names: of the model.

    Returns:
        One set of videos a source.

    Raises:
        DatasetError: data cannot be read, or its classes are not the model's.
    """
    opened = [_open(source) for source in sources]
    for videos in opened:
        Truth.of(videos.dataset)
        label_map(videos.dataset, class_names)
    return opened


def _open(source: Source) -> AnnotatedVideos:
    source.check()
    drawn = source.synthetic
    if drawn is None:
        return from_files(Path(source.annotations), Path(source.images))
    return from_synthetic(SyntheticVideos(drawn.split, drawn.num_videos, drawn.num_frames, drawn.size, drawn.seed))


def validate(model: RDN | SmallFCOS, sources: Sequence[AnnotatedVideos]) -> float:
    """The accuracy of a model that is in training. It changes nothing in the model.

    Args:
        model: on any device.
        sources: of `open_validation`.

    Returns:
        AP50 in percent, the mean over the sources.

    Raises:
        DatasetError: a source has no annotated object, or a frame that cannot be read.
    """
    found: list[float | None] = [
        evaluate(RunModel(model, model.config.dials), videos)["vid"][METRIC] for videos in sources
    ]
    known = [ap for ap in found if ap is not None]
    if len(known) < len(found):
        names = ", ".join(v.name for v, ap in zip(sources, found, strict=True) if ap is None)
        raise DatasetError(f"{names} has no annotated object to validate with; wanted one or more")
    return sum(known) / len(known)
