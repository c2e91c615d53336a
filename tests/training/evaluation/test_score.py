"""Evaluation from videos to figures: the data, the detectors, the command, and what a stranger gets wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdn_engine import Detector
from rdn_engine.config import Dials
from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, read_dataset
from rdn_engine.evaluation.plots import draw
from rdn_engine.evaluation.score import precision_recall, score
from rdn_engine.evaluation.table import result_table
from tests.data_files import nothing_wrong
from tests.evaluation_cases import NAMES, as_found, as_videos, draw_case, micro_model
from training.data.export_synthetic import export_synthetic, main
from training.data.synthetic import CLASS_NAMES, SyntheticVideos
from training.evaluation.detect import FrameDetections, RunDetector, RunModel, detect_all, evaluate
from training.evaluation.videos import from_files, from_synthetic

torch.set_num_threads(1)

ROOT = Path(__file__).parents[3]
ENGINES = ROOT / "models" / "rdn_tiny" / "engines"
SMALL = SyntheticVideos("test", 2, 6, (96, 64))


class Oracle:
    """Finds what is annotated: with `shift` pixels of error, as another class, or with a number of frames left out."""

    class_names = CLASS_NAMES
    dials = Dials(window=2)

    def __init__(self, videos, shift=0, other_class=0, left_out=0):
        self.videos, self.shift, self.other_class, self.left_out = videos, shift, other_class, left_out
        self.calls = 0

    def __call__(self, frames):
        video = self.videos[self.calls]
        self.calls += 1
        for t, frame in enumerate(list(frames)[self.left_out :]):
            assert (frame == video.frames[t + self.left_out]).all()
            confidence = np.linspace(0.9, 0.5, len(video.labels[t]), dtype=np.float32)
            labels = (video.labels[t] + self.other_class) % len(CLASS_NAMES)
            yield FrameDetections(video.boxes[t] + np.float32(self.shift), confidence, labels)


class FromPixels:
    """Finds boxes that depend on every pixel of a frame."""

    class_names = CLASS_NAMES
    dials = Dials(window=2)

    def __call__(self, frames):
        for frame in frames:
            rng = np.random.default_rng(frame.ravel())
            corner = rng.uniform(0, 60, (40, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(10, 40, (40, 2))], axis=1)
            yield FrameDetections(boxes.astype(np.float32), rng.random(40, np.float32), rng.integers(0, 6, 40))


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic")
    export_synthetic(SMALL, directory)
    return directory


@pytest.mark.parametrize(("shift", "other_class", "wanted"), [(0, 0, 100), (200, 0, 0), (0, 1, 0)])
def test_known_detections_have_a_known_ap(shift, other_class, wanted):
    videos = SyntheticVideos("test", 3, 8, (96, 64))
    result = evaluate(Oracle(videos, shift, other_class), from_synthetic(videos))
    assert result["vid"]["AP50"] == pytest.approx(wanted, abs=12 if wanted == 0 else 1e-9)
    assert result["coco"]["AP"] == pytest.approx(wanted, abs=12 if wanted == 0 else 1e-9)
    assert result["data"]["objects"] == sum(len(b) for i in range(3) for b in videos[i].boxes)
    if wanted == 100:
        assert {part["AP50"] for part in result["vid"]["conditions"].values()} == {100.0}
        assert (result["delay"]["frames"], result["delay"]["look_ahead"]) == (0, 2)


def test_files_and_memory_hold_the_same_videos(on_disk):
    memory, files = from_synthetic(SMALL), from_files(on_disk / "annotations.json", on_disk / "images")
    assert files.dataset == memory.dataset == read_dataset(on_disk / "annotations.json")
    first, second = (evaluate(FromPixels(), videos) for videos in (memory, files))
    assert 0 < first["vid"]["AP50"] < 100
    assert first["vid"].pop("conditions")
    assert second["vid"].pop("conditions") == {}
    assert first["data"].pop("name") != second["data"].pop("name")
    assert first == second


@pytest.mark.parametrize(("suffix", "largest_error"), [("png", 0), ("jpg", 90)])
def test_exported_videos_pass_the_check_of_data_sets(tmp_path, monkeypatch, capsys, suffix, largest_error):
    arguments = [str(tmp_path), "--split", "train", "--videos", "1", "--frames", "3", "--format", suffix]
    monkeypatch.setattr("sys.argv", ["export_synthetic", *arguments])
    main()
    dataset = read_dataset(tmp_path / "annotations.json")
    assert "1 videos, 3 frames" in capsys.readouterr().out
    assert nothing_wrong(dataset, tmp_path / "images")
    drawn = SyntheticVideos("train", 1, 3)[0]
    videos = from_files(tmp_path / "annotations.json", tmp_path / "images")
    for frame, image in zip(dataset.frames, drawn.frames, strict=True):
        assert np.abs(videos.read(frame).astype(int) - image).max() <= largest_error
    assert [a.xyxy for a in dataset.annotations] == [tuple(b) for boxes in drawn.boxes for b in boxes.tolist()]


def test_conditions_are_parts_of_the_frames():
    videos = from_synthetic(SyntheticVideos("test", 2, 20, (96, 64)))
    result = evaluate(FromPixels(), videos)
    parts = result["vid"]["conditions"].values()
    assert min(p["frames"] for p in parts) > 0
    assert sum(p["frames"] for p in parts) == result["data"]["frames"] == 40
    assert sum(p["objects"] for p in parts) == result["data"]["objects"]
    for name, ids in videos.conditions.items():
        dataset = replace(
            videos.dataset,
            frames=[f for f in videos.dataset.frames if f.id in ids],
            annotations=[a for a in videos.dataset.annotations if a.image_id in ids],
        )
        alone = evaluate(FromPixels(), replace(videos, dataset=dataset, conditions={}))
        assert alone["vid"]["AP50"] == pytest.approx(result["vid"]["conditions"][name]["AP50"], abs=1e-9)


def test_without_instances_speed_and_delay_are_absent():
    boxes, detections = draw_case(5, tracked=False)
    videos = as_videos(boxes)
    result = score(as_found(detections), videos, NAMES, 0)
    for block in ("speed", "delay", "stability", "tracking"):
        assert "no annotation has an instance_id" in result[block]["absent"]
        assert result[block].keys() == {"protocol", "absent"}
    assert result["vid"]["AP50"] > 0
    assert list(precision_recall(as_found(detections), videos, NAMES)) == ["all"]


def test_every_block_of_figures_names_its_protocol():
    boxes, detections = draw_case(0)
    result = score(as_found(detections), as_videos(boxes), NAMES, 0)
    assert {k for k, v in result.items() if "protocol" not in v} == {"data"}
    json.dumps(result, allow_nan=False)


def test_one_detector_and_one_set_of_videos_serve_all_settings():
    videos = from_synthetic(SyntheticVideos("test", 1, 6))
    detector = Detector.from_pretrained(ENGINES, threads=1)
    near, far = (replace(detector.config.dials, window=t) for t in (0, 4))
    results = [evaluate(RunDetector(detector, dials), videos) for dials in (near, far, near)]
    assert results[0] == results[2]
    assert results[0]["vid"] != results[1]["vid"]
    assert [r["dials"]["window"] for r in results] == [0, 4, 0]


def test_a_model_in_training_is_left_as_it_was():
    model = micro_model().train()
    run = RunModel(model, model.config.dials)
    first, again = (evaluate(run, from_synthetic(SMALL)) for _ in range(2))
    assert model.training
    assert first == again


@pytest.mark.parametrize(("seed", "tracked"), [(5, True), (5, False)])
def test_plots_and_table_show_all_figures_or_why_not(tmp_path, seed, tracked):
    boxes, detections = draw_case(seed, tracked=tracked)
    found, videos = as_found(detections), as_videos(boxes)
    result = score(found, videos, NAMES, 0)
    for path in draw(result, precision_recall(found, videos, NAMES), tmp_path):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert min(pixels.shape[:2]) > 400
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    cells = [list(c.cells) for c in result_table(result).columns]
    by_speed = dict(zip(cells[1], cells[4], strict=True))
    assert ("slow objects" in by_speed) == tracked
    assert tracked or "instance_id" in by_speed["by speed"]


def wrong(dataset, **changes):
    return replace(as_videos([]), dataset=replace(dataset, **changes))


def cases_of_wrong_data():
    boxes, _ = draw_case(1)
    good = as_videos(boxes).dataset
    region = Annotation(0, 0, 0, (0, 0, 9, 9), None, True)
    yield wrong(good, annotations=[]), "no annotated object besides 0 ignore regions"
    yield wrong(good, annotations=[region]), "no annotated object besides 1 ignore regions"
    yield wrong(good, annotations=[replace(region, category_id=99)]), r"categories \[99\]; wanted some of \[0, 10, 20\]"
    yield wrong(good, categories=good.categories[:2]), "wanted some of"
    twins = [Category(0, "cat"), Category(10, "cat"), Category(20, "owl")]
    yield wrong(good, categories=twins), "wanted distinct names"
    others = [Category(0, "cat"), Category(10, "dog"), Category(20, "cow")]
    yield wrong(good, categories=others), r"only the detector has \['owl'\], only the data set \['cow'\]"
    yield wrong(Dataset()), "no annotated object"


@pytest.mark.parametrize(("videos", "message"), list(cases_of_wrong_data()))
def test_data_sets_that_cannot_be_scored_are_refused_before_detecting(videos, message):
    class Never:
        class_names, dials = NAMES, Dials()

        def __call__(self, frames):
            raise AssertionError("detected")

    with pytest.raises(DatasetError, match=message):
        evaluate(Never(), videos)


def test_classes_may_come_in_another_order():
    boxes, detections = draw_case(2)
    renamed = [d._replace(label=(d.label + 1) % 3) for d in detections]
    first = score(as_found(detections), as_videos(boxes), NAMES, 0)
    second = score(as_found(renamed), as_videos(boxes), (NAMES[2], NAMES[0], NAMES[1]), 0)
    assert first == second


@pytest.mark.parametrize(("change", "message"), [
    (lambda found: found | {77: found[0]}, r"29 frames, 1 of them unknown \[77\] and 0 missing"),
    (lambda found: {k: v for k, v in found.items() if k != 3}, r"0 of them unknown \[\] and 1 missing \[3\]"),
    (lambda found: found | {0: FrameDetections(np.full((1, 4), np.nan), np.ones(1), np.zeros(1, int))},
     "a detection in frame 0 has the box .nan"),
])  # fmt: skip
def test_detections_that_do_not_fit_the_frames_are_refused(change, message):
    boxes, detections = draw_case(3)
    with pytest.raises(DatasetError, match=message):
        score(change(as_found(detections)), as_videos(boxes), NAMES, 0)


def test_a_detector_that_skips_a_frame_is_refused():
    with pytest.raises(DatasetError, match=r"video test_0000 has 6 frames and 5 results; wanted one a frame"):
        detect_all(Oracle(SMALL, left_out=1), from_synthetic(SMALL))


def damage(directory, how):
    path = directory / "images" / "test_0001" / "000002.png"
    if how == "missing":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(path.read_bytes()[:300])
    elif how == "no image":
        path.write_text("no image")
    else:
        Image.new("RGB", (32, 24)).save(path)


@pytest.mark.parametrize(("how", "message"), [
    ("missing", "there is no file .*test_0001/000002.png, .*taken to start in .*--images"),
    ("cut off", "test_0001/000002.png cannot be read: "),
    ("no image", "test_0001/000002.png cannot be read: "),
    ("smaller", "test_0001/000002.png is 32 x 24; the annotations say 96 x 64"),
])  # fmt: skip
def test_frames_that_cannot_be_read_are_named(tmp_path, how, message):
    export_synthetic(SMALL, tmp_path)
    damage(tmp_path, how)
    with pytest.raises(DatasetError, match=message):
        evaluate(FromPixels(), from_files(tmp_path / "annotations.json", tmp_path / "images"))
