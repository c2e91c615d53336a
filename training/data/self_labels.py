"""Labels videos that nobody annotated: by a detector that sees all of each, for a training of one that sees less.

    python training/data/self_labels.py --engines engines/mine street_*.mp4 --images frames/self --output self.json

The teacher looks at every frame with its whole window on both sides (L = T), and its boxes are linked over the whole
video, which gives those of a blurred or half-hidden object the certainty of the frames in which it was seen well. Boxes
of a confidence above --accept are annotations, each with the identity of its track; boxes between --doubt and --accept
are ignore regions, which are an example of nothing. What is written is CocoVID (docs/datasets.md), and its `info` says
which teacher saw what, and how it was told to choose. Frames are written below --images; a video whose frames are there
is not decoded again. Exit code 1 where a video cannot be read, or the teacher is certain of nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine import Detections, Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.errors import ConfigError, DatasetError, RDNError
from rdn_engine.evaluation.boxes import iou
from rdn_engine.evaluation.coco_vid import Dataset, write_dataset
from rdn_engine.results import NOBODY
from training.arguments import given_path
from training.data.builder import Builder
from training.data.frames import write_frames
from training.data.readers.base import frames_of
from training.provenance import environment

SAME = 0.5
"""IoU above which two boxes of a frame are taken for one object, whatever their classes"""


@dataclass(frozen=True)
class Choice:
    """What becomes of the teacher's boxes."""

    accept: float = 0.5
    """Confidence, 0..1, rescored along the track; boxes above it are annotations"""
    doubt: float = 0.1
    """0..accept; boxes above it that are no annotation are ignore regions, those below it are taken for background"""
    least: int = 3
    """Frames, 1 or more: a track with fewer boxes above `accept` is doubted as a whole"""
    references: int | None = None
    """Frames at most that training may draw as a reference, evenly over all that have an annotation; None for all"""

    def __post_init__(self) -> None:
        if not 0 <= self.doubt <= self.accept < 1:
            raise ConfigError(f"accept is {self.accept} and doubt {self.doubt}; wanted 0 <= doubt <= accept < 1")
        if self.least < 1 or (self.references is not None and self.references < 1):
            raise ConfigError(f"least is {self.least} and references {self.references}; wanted 1 or more")


def teacher_dials(own: Dials, choice: Choice) -> Dials:
    """As a teacher looks, who need not hurry: the whole window on both sides, boxes linked over the whole video.

    Args:
        own: of the model; its way of linking is kept, where it has one.
        choice: says down to which confidence boxes are wanted.
    """
    link = "boxes" if own.link == "off" else own.link
    return replace(own, look_ahead=None, link=link, link_delay=WHOLE_VIDEO, score_threshold=choice.doubt)


@dataclass(frozen=True)
class Chosen:
    """What became of the boxes of one frame."""

    labels: NDArray[np.int64]
    """Rows that are annotations"""
    doubted: NDArray[np.int64]
    """Rows that are ignore regions"""


def choose(results: Sequence[Detections], choice: Choice) -> list[Chosen]:
    """Which boxes of a linked video are annotations, and which are in doubt.

    Of boxes of several classes on one object the most certain one counts; what is in doubt where an annotation lies is
    left out, because that object has its label. A box without an identity is of no track that lasts, and in doubt.

    Args:
        results: of all frames, linked over the whole video.
        choice: the thresholds.

    Returns:
        One for each frame.

    Raises:
        DatasetError: the results are not linked.
    """
    sure: Counter[int] = Counter()
    for result in results:
        if len(result) and result.tracker_id is None:
            raise DatasetError(f"frame {result.frame_index} has boxes without a tracker_id; wanted linked results")
        if len(result):
            sure.update(_tracks(result)[result.confidence > choice.accept].tolist())
    sure.pop(NOBODY, None)  # of many objects, or of none
    chosen = []
    for result in results:
        lasting = np.array([sure[track] >= choice.least for track in _tracks(result).tolist()], bool)
        accepted = (result.confidence > choice.accept) & lasting
        labels: list[int] = []
        boxes = result.xyxy.astype(np.float64)
        for row in np.argsort(-result.confidence, kind="stable"):
            if accepted[row] and not (iou(boxes[labels], boxes[[row]]) > SAME).any():
                labels.append(int(row))
        doubted = np.flatnonzero((result.confidence > choice.doubt) & ~accepted)
        apart = ~(iou(boxes[doubted], boxes[labels]) > SAME).any(axis=1)
        chosen.append(Chosen(np.array(labels, np.int64), doubted[apart]))
    return chosen


def _tracks(result: Detections) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if result.tracker_id is None else result.tracker_id


def self_labels(
    detector: Detector,
    videos: Sequence[Path],
    images: Path,
    choice: Choice | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> tuple[Dataset, list[dict[str, Any]]]:
    """Labels videos by what a detector finds in them.

    Args:
        detector: the teacher.
        videos: files, or folders of images.
        images: folder that the frames are written to, one folder for each video.
        choice: what becomes of its boxes.
        report: is called with a line on each video.

    Returns:
        The data set, and what was found in each video: its name, source, and numbers of frames, annotations, tracks
        and ignore regions.

    Raises:
        DatasetError: a video comes twice, or the teacher is certain of nothing.
        VideoError: a video cannot be read.
    """
    choice = choice or Choice()
    builder = Builder(enumerate(detector.config.class_names, 1))
    dials = teacher_dials(detector.config.dials, choice)
    accounts: list[dict[str, Any]] = []
    for path, name in zip(videos, _names(videos), strict=True):
        files = _frames(path, images / name)
        results = detector.predict(list(files.values()), dials=dials)
        assert isinstance(results, list)
        builder.video(name)
        account: Counter[str] = Counter()
        tracks = set()
        for (number, file), result, chosen in zip(files.items(), results, choose(results, choice), strict=True):
            # A frame in which nothing is certain may show what the teacher missed: no reference, but support.
            train = len(chosen.labels) > 0
            builder.frame(f"{name}/{file.name}", result.width, result.height, number, train=train)
            for rows, ignore in ((chosen.labels, False), (chosen.doubted, True)):
                for row in rows:
                    x1, y1, x2, y2 = result.xyxy[row].tolist()
                    track = None if ignore else int(_tracks(result)[row])
                    builder.box((x1, y1, x2, y2), int(result.class_id[row]) + 1, track, ignore)
            tracks |= set(_tracks(result)[chosen.labels].tolist())
            account.update(frames=1, labelled_frames=int(train), annotations=len(chosen.labels))
            account.update(ignore_regions=len(chosen.doubted))
        accounts.append({"name": name, "source": path.name, **account, "tracks": len(tracks)})
        report(
            f"{name}: {account['annotations']} boxes in {len(tracks)} tracks on {account['labelled_frames']} of "
            f"{account['frames']} frames, {account['ignore_regions']} in doubt"
        )
    if not sum(account["annotations"] for account in accounts):
        raise DatasetError(
            f"in {len(videos)} videos no track has {choice.least} boxes of a confidence above {choice.accept}; wanted "
            "a lower --accept, a better teacher, or videos of what it knows"
        )
    return _fewer_references(builder.dataset, choice.references), accounts


def _names(videos: Sequence[Path]) -> list[str]:
    """A name for each video that none of the others has: that of its file, and of folders above where it takes them."""
    if len({video.resolve() for video in videos}) < len(videos):
        raise DatasetError("a video comes twice; wanted each once")
    parts = [(*video.resolve().parent.parts[1:], video.stem if video.is_file() else video.name) for video in videos]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["_".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    shown = ", ".join(str(video) for video in videos[:3])
    raise DatasetError(f"videos such as {shown} differ in their suffix alone; wanted distinct names")


def _frames(video: Path, folder: Path) -> dict[int, Path]:
    """The frames of a video by their numbers; a folder of them is there whole or not at all."""
    if not folder.exists():
        part = folder.with_name(f".{folder.name}.part")
        for old in part.iterdir() if part.exists() else ():
            old.unlink()
        write_frames(video, part)
        part.rename(folder)
    return frames_of(folder)


def _fewer_references(dataset: Dataset, most: int | None) -> Dataset:
    labelled = [i for i, frame in enumerate(dataset.frames) if frame.train]
    if most is None or len(labelled) <= most:
        return dataset
    kept = {labelled[i * len(labelled) // most] for i in range(most)}
    frames = [replace(frame, train=i in kept) for i, frame in enumerate(dataset.frames)]
    return replace(dataset, frames=frames)


def provenance(bundle: Bundle, dials: Dials, choice: Choice, accounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the labels come from, for `info` of the file.

    Args:
        bundle: of the teacher.
        dials: of the model itself.
        choice: what became of the boxes.
        accounts: of `self_labels`.

    Returns:
        Plain values, as JSON holds them.
    """
    teacher = {
        "name": bundle.manifest.name,
        "source": dict(bundle.manifest.source),
        "precision": bundle.manifest.precision,
        "dials": asdict(teacher_dials(dials, choice)),
    }
    return {
        "description": "labels of a detector, not of people",
        "teacher": teacher,
        "choice": asdict(choice),
        "videos": accounts,
        **environment(),
    }


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("videos", type=given_path, nargs="+", help="video files, or folders of images")
    made.add_argument("--engines", type=given_path, required=True, help="engine directory of the teacher")
    made.add_argument("--images", type=given_path, required=True, help="folder for the frames")
    made.add_argument("--output", type=given_path, required=True, help="the JSON file to write")
    own = Choice()
    made.add_argument("--accept", type=float, default=own.accept, help="boxes above are annotations; %(default)s")
    made.add_argument("--doubt", type=float, default=own.doubt, help="above, ignore regions; %(default)s")
    made.add_argument("--least", type=int, default=own.least, help="such boxes of a track that counts; %(default)s")
    made.add_argument("--references", type=int, help="frames at most that training draws as a reference; default: all")
    made.add_argument("--threads", type=int, help="of the detector; default: every CPU")
    return made


def main() -> None:
    arguments = parser().parse_args()
    try:
        choice = Choice(arguments.accept, arguments.doubt, arguments.least, arguments.references)
        bundle = Bundle.open(arguments.engines)
        detector = Detector.from_pretrained(arguments.engines, threads=arguments.threads)
        dataset, accounts = self_labels(detector, arguments.videos, arguments.images, choice, print)
        about = provenance(bundle, detector.config.dials, choice, accounts)
        write_dataset(dataset, arguments.output, info=about)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    references = sum(frame.train for frame in dataset.frames)
    print(f"{arguments.output}: {len(dataset.videos)} videos, {references} frames to train on")


if __name__ == "__main__":
    main()
