"""Videos that a detector labels: which of its boxes count, what is written, and that training takes it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdn_engine import Detections, Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.errors import ConfigError, DatasetError, VideoError
from rdn_engine.evaluation.coco_vid import read_dataset, read_json, write_dataset
from rdn_engine.results import NOBODY
from training.data.check import check_dataset
from training.data.self_labels import Choice, choose, provenance, self_labels, teacher_dials
from training.data.synthetic import SyntheticVideos, write_clip
from training.data.videos import CocoVideos

ROOT = Path(__file__).parents[3]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
NAMES = ("cat", "dog")

Row = tuple[float, float, int, int]
"""x1 of a box of 20 x 20 pixels, confidence, class, track"""


def result(frame: int, *rows: Row, linked: bool = True) -> Detections:
    boxes = [[x, 10, x + 19, 29] for x, *_ in rows]
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.array([c for _, c, _, _ in rows], np.float32),
        class_id=np.array([c for _, _, c, _ in rows], np.int64),
        tracker_id=np.array([t for *_, t in rows], np.int64) if linked else None,
        class_names=NAMES, frame_index=frame, pts=None, source_id="", height=64, width=200, pool_fill=1, lookahead=0,
        epoch=0,
    )  # fmt: skip


def rows_of(results: list[Detections], choice: Choice) -> list[tuple[list[int], list[int]]]:
    return [(c.labels.tolist(), c.doubted.tolist()) for c in choose(results, choice)]


def test_a_track_that_is_certain_often_enough_is_labelled_where_it_is_certain() -> None:
    frames = [result(t, (10.0 + t, confidence, 0, 7)) for t, confidence in enumerate((0.9, 0.8, 0.3, 0.7, 0.05))]
    assert rows_of(frames, Choice()) == [([0], []), ([0], []), ([], [0]), ([0], []), ([], [])]
    # One box more is wanted than it has, so that it is doubted as a whole.
    assert rows_of(frames, Choice(least=4)) == [([], [0])] * 4 + [([], [])]
    assert rows_of(frames, Choice(accept=0.75, least=2)) == [([0], []), ([0], []), ([], [0]), ([], [0]), ([], [])]


def test_of_two_classes_on_one_object_the_more_certain_counts() -> None:
    frames = [result(t, (10.0, 0.6, 0, 1), (12.0, 0.7, 1, 2), (100.0, 0.55, 0, 3)) for t in range(3)]
    assert rows_of(frames, Choice()) == [([1, 2], [])] * 3


def test_what_is_doubted_where_a_label_lies_is_no_ignore_region() -> None:
    frames = [result(t, (10.0, 0.9, 0, 1), (13.0, 0.3, 1, 2), (60.0, 0.3, 1, 3)) for t in range(3)]
    assert rows_of(frames, Choice()) == [([0], [2])] * 3


def test_a_box_without_an_identity_is_in_doubt_however_many_there_are() -> None:
    frames = [result(t, (10.0, 0.9, 0, 1), (100.0, 0.8, 0, NOBODY), (13.0, 0.7, 0, NOBODY)) for t in range(5)]
    assert rows_of(frames, Choice()) == [([0], [1])] * 5


def test_frames_without_boxes_and_results_that_are_not_linked() -> None:
    assert rows_of([result(0), result(1, linked=False)], Choice()) == [([], []), ([], [])]
    with pytest.raises(DatasetError, match="frame 1 has boxes without a tracker_id; wanted linked results"):
        choose([result(0), result(1, (0.0, 0.9, 0, 1), linked=False)], Choice())


@pytest.mark.parametrize(
    "wrong",
    [{"accept": 1.0}, {"doubt": 0.6}, {"doubt": -0.1}, {"least": 0}, {"references": 0}, {"accept": float("nan")}],
)
def test_thresholds_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="wanted"):
        Choice(**wrong)  # type: ignore[arg-type]


def test_the_teacher_sees_both_sides_and_links_the_whole_video() -> None:
    dials = teacher_dials(Dials(look_ahead=0), Choice(doubt=0.2))
    assert (dials.frames_ahead, dials.link, dials.link_delay, dials.score_threshold) == (18, "boxes", WHOLE_VIDEO, 0.2)
    assert teacher_dials(Dials(link="relations"), Choice()).link == "relations"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file and a folder of images, of one name."""
    folder = tmp_path_factory.mktemp("videos")
    write_clip(folder / "yard.mp4", index=7, num_frames=8)
    (folder / "street" / "yard").mkdir(parents=True)
    for t, frame in enumerate(SyntheticVideos("test", 1, 6)[0].frames):
        Image.fromarray(frame).save(folder / "street" / "yard" / f"{t + 1:04d}.png")
    return [folder / "yard.mp4", folder / "street" / "yard"]


def test_labels_of_a_trained_detector_lie_on_objects_and_train(
    detector: Detector, videos: list[Path], tmp_path: Path
) -> None:
    said: list[str] = []
    dataset, accounts = self_labels(detector, videos, tmp_path / "images", Choice(), said.append)
    names = [f"{videos[0].parent.name}_yard", "street_yard"]
    assert [video.name for video in dataset.videos] == names
    assert [(a["name"], a["source"], a["frames"]) for a in accounts] == list(
        zip(names, ("yard.mp4", "yard"), (8, 6), strict=True)
    )
    assert len(said) == 2
    assert said[0].startswith(f"{names[0]}: {accounts[0]['annotations']} boxes in {accounts[0]['tracks']} tracks on ")
    bundle = Bundle.open(ENGINES)
    about = provenance(bundle, detector.config.dials, Choice(), accounts)
    write_dataset(dataset, tmp_path / "self.json", info=about)
    assert read_dataset(tmp_path / "self.json") == dataset
    assert list(check_dataset(dataset, "self.json", tmp_path / "images", decode=True)) == []
    info = read_json(tmp_path / "self.json")["info"]
    assert info["teacher"]["source"] == bundle.manifest.source
    assert (info["choice"]["accept"], info["videos"]) == (0.5, accounts)
    # What training sees of it: the classes of the teacher, references with labels alone.
    taken = CocoVideos(tmp_path / "self.json", tmp_path / "images")
    assert taken.class_names == detector.config.class_names
    for video in range(2):
        for t in taken.references(video):
            assert len(taken.example(video, int(t)).boxes) > 0
    # Most labels are right: the annotations of the second video are known.
    truth = SyntheticVideos("test", 1, 6)[0]
    own = [f for f in dataset.frames if f.video_id == 2]
    labels = [a for a in dataset.annotations if a.image_id in {f.id for f in own} and not a.ignore]
    right = 0
    for label in labels:
        t = next(i for i, f in enumerate(own) if f.id == label.image_id)
        same = truth.boxes[t][truth.labels[t] == label.category_id - 1]
        right += bool(len(same)) and float(np.abs(same - np.array(label.xyxy)).max(1).min()) < 8
    assert len(labels) >= 6
    assert right > 0.7 * len(labels)
    # An object is one track.
    assert len({a.instance_id for a in labels}) < len(labels) / 2


def test_frames_that_are_there_are_not_decoded_again(detector: Detector, videos: list[Path], tmp_path: Path) -> None:
    first, _ = self_labels(detector, videos[:1], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yard"]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "yard").iterdir()}
    # What a run that was stopped has left
    (tmp_path / "yard").rename(tmp_path / ".yard.part")
    (tmp_path / ".yard.part" / "000007.jpg").unlink()
    second, _ = self_labels(detector, videos[:1], tmp_path)
    assert first == second
    assert {path.name for path in stamps} == {path.name for path in (tmp_path / "yard").iterdir()}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "yard").iterdir()}
    self_labels(detector, videos[:1], tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "yard").iterdir()} == stamps


@pytest.mark.parametrize("most", [1, 3, 5])
def test_references_are_spread_evenly(detector: Detector, videos: list[Path], tmp_path: Path, most: int) -> None:
    every, _ = self_labels(detector, videos[:1], tmp_path)
    some, _ = self_labels(detector, videos[:1], tmp_path, Choice(references=most))
    labelled = [i for i, frame in enumerate(every.frames) if frame.train]
    kept = [i for i, frame in enumerate(some.frames) if frame.train]
    assert len(labelled) > most
    assert len(kept) == most
    assert set(kept) <= set(labelled)
    places = [labelled.index(i) for i in kept]
    assert all(abs((b - a) - len(labelled) / most) < 1 for a, b in pairwise(places))
    assert [replace(frame, train=True) for frame in some.frames] == [replace(f, train=True) for f in every.frames]
    assert some.annotations == every.annotations


def test_what_cannot_be_labelled_is_refused(detector: Detector, videos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"in 1 videos no track has 9 boxes of a confidence above 0.5; wanted"):
        self_labels(detector, videos[:1], tmp_path, Choice(least=9))
    with pytest.raises(DatasetError, match="a video comes twice; wanted each once"):
        self_labels(detector, [videos[0], videos[0]], tmp_path)
    with pytest.raises(VideoError):
        self_labels(detector, [tmp_path / "absent.mp4"], tmp_path / "images")
    assert not list((tmp_path / "images").glob("[!.]*"))


def test_the_command_writes_the_file_or_says_why_not(videos: list[Path], tmp_path: Path) -> None:
    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        told = ["--engines", ENGINES, "--images", tmp_path / "images", "--output", tmp_path / "self.json"]
        line = [sys.executable, "training/data/self_labels.py", *map(str, (*arguments, *told)), "--threads", "1"]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    done = command(videos[0], "--accept", "0.6", "--references", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'self.json'}: 1 videos, 4 frames to train on"
    info = json.loads((tmp_path / "self.json").read_text())["info"]
    assert info["choice"] == {"accept": 0.6, "doubt": 0.1, "least": 3, "references": 4}
    refused = command(videos[0], "--accept", "0.05")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "error: accept is 0.05 and doubt 0.1; wanted 0 <= doubt <= accept < 1\n"
