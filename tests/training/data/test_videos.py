"""Training on a CocoVID data set: what is read, what is refused before the first step, what is passed over."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rdn_engine.errors import ConfigError, DatasetError, TrainingError
from tests.training_files import MODEL, micro, phase, synthetic
from training.data.export_synthetic import export_synthetic
from training.data.sampling import Clips, load
from training.data.synthetic import CLASS_NAMES, SyntheticVideos
from training.data.videos import CocoVideos, Source, Synthetic, open_source, open_sources
from training.settings import Settings
from training.trainer import Trainer, learning_rate

VIDEOS, FRAMES = 3, 5
CONFIG = Path(__file__).parents[3] / "training/configs/rdn_r101_vid.yaml"


@pytest.fixture
def data(tmp_path):
    """A folder with annotations.json and images/; `edit` changes the annotations."""
    folder = tmp_path / "data"
    export_synthetic(SyntheticVideos("train", VIDEOS, FRAMES, (96, 64)), folder)
    return folder


def source(folder):
    return {"annotations": str(folder / "annotations.json"), "images": str(folder / "images")}


def videos(folder):
    return CocoVideos(folder / "annotations.json", folder / "images")


def edit(folder, change):
    path = folder / "annotations.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_files_are_what_was_written(data):
    read = videos(data)
    drawn = open_source(Source(Synthetic("train", VIDEOS, FRAMES, (96, 64))))
    assert read.class_names == CLASS_NAMES
    assert [read.num_frames(v) for v in range(len(read))] == [FRAMES] * VIDEOS
    for v in range(VIDEOS):
        for t in range(FRAMES):
            a, b = read.example(v, t), drawn.example(v, t)
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.boxes, b.boxes)
            assert np.array_equal(a.labels, b.labels)
            assert a.ignored.shape == (0, 4)


def test_a_run_on_files_is_the_run_on_what_they_show(data, tmp_path):
    torch.set_num_threads(1)
    phases = [phase(iterations=2)]
    of_files = micro(data={"train": [source(data)], "exchange_colours": True}, phases=phases)
    assert of_files.model.class_names == CLASS_NAMES, "the data's, where the settings name none"
    drawn = {"train": [synthetic(num_videos=VIDEOS, num_frames=FRAMES)], "exchange_colours": True}
    a, b = Trainer(of_files, tmp_path / "a"), Trainer(micro(data=drawn, phases=phases), tmp_path / "b")
    for _ in range(2):
        losses = [t.step() for t in (a, b)]
        assert losses[0]["loss"] == losses[1]["loss"]


def test_the_papers_recipe(data, tmp_path):
    """Its settings as they stand, then both phases on a miniature of the model."""
    torch.set_num_threads(1)
    own = [f"data.{part}.0.{k}={v}" for part in ("train", "validation") for k, v in source(data).items()]
    paper = Settings.read(CONFIG, own)
    basic, full = paper.phases
    assert (basic.iterations, full.iterations) == (120_000, 60_000)
    rates = {0: 1e-3 / 3, 499: 1e-3, 79_999: 1e-3, 80_000: 1e-4, 119_999: 1e-4}
    for done, rate in rates.items():
        assert learning_rate(paper, basic, done) == pytest.approx(rate, rel=0.01)
    assert learning_rate(paper, full, 40_000) == pytest.approx(1e-4)
    assert (paper.optimizer, paper.momentum, paper.weight_decay, paper.rois_per_frame) == ("sgd", 0.9, 1e-4, 128)
    assert (basic.frames_per_clip, basic.references, paper.data.flip) == (3, "first", True)
    dials = paper.model.dials
    assert (dials.window, dials.num_support, dials.num_reference, dials.advanced_ratio) == (18, 75, 300, 0.2)
    small = ["model.input.shorter_side=64", "model.input.longer_side=96", "model.backbone.name=resnet18",
             "model.backbone.width=0.125", "model.relation.dim=32", "model.relation.heads=2", "model.roi.size=3",
             "model.rpn.anchor_sizes=[16, 32]", "phases.0.drops=[1]", "phases.1.drops=[1]",
             "phases.0.iterations=2", "phases.1.iterations=2", "model.dials.window=2",
             "model.dials.num_support=5", "model.dials.num_reference=8", "evaluate_every=2", "log_every=1"]  # fmt: skip
    trainer = Trainer(Settings.read(CONFIG, own + small), tmp_path / "run")
    before = trainer.model.backbone.layer1[0].conv1.weight.clone()
    trainer.run()
    assert torch.equal(before, trainer.model.backbone.layer1[0].conv1.weight)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines if "loss" in line] == ["basic", "basic", "full", "full"]
    assert [line["iteration"] for line in lines if "AP50" in line] == [2, 4]


def test_ignore_regions_are_no_objects(data):
    def change(rows):
        rows["annotations"][0] |= {"iscrowd": 1}

    before = videos(data).example(0, 0)
    edit(data, change)
    after = videos(data).example(0, 0)
    assert np.array_equal(after.ignored, before.boxes[:1])
    assert np.array_equal(after.boxes, before.boxes[1:])
    assert np.array_equal(after.labels, before.labels[1:])


def test_only_train_frames_are_references(data):
    def change(rows):
        for frame in rows["images"]:
            frame["is_vid_train_frame"] = frame["frame_id"] in (1, 3) and frame["video_id"] != 2

    edit(data, change)
    read = videos(data)
    assert [read.references(v).tolist() for v in range(3)] == [[1, 3], [], [1, 3]]
    for references in ("first", "all"):
        settings = micro(phases=[phase(references=references, iterations=8)], data={"train": [source(data)]})
        made = Clips(read, settings)
        drawn = [made[i, j].names for i in range(8) for j in range(2)]
        first = {names[0].split("images/")[1] for names in drawn}
        assert first == {f"train_000{v}/00000{t}.png" for v in (0, 2) for t in (1, 3)}
        others = {int(name[-5]) for names in drawn for name in names[1:]}
        assert others == ({1, 3} if references == "all" else {0, 1, 2, 3, 4})


def test_sources_are_mixed_and_a_still_image_supports_itself(data, tmp_path):
    still = tmp_path / "still"
    export_synthetic(SyntheticVideos("train", 4, 1, (64, 96), seed=5), still)
    settings = micro(data={"train": [source(data), source(still)]}, phases=[phase(references="first", clips=19)])
    trainer = Trainer(settings, tmp_path / "run")
    batch = trainer._next_batch()
    names = batch.names[::3]
    assert len(set(names)) == VIDEOS * FRAMES + 4, "an epoch: every reference once"
    assert sum("still" in name for name in names) == 4
    stills = [i for i in range(0, len(batch.names), 3) if "still" in batch.names[i]]
    assert all(batch.names[i] == batch.names[i + 1] == batch.names[i + 2] for i in stills)
    assert {batch.sizes[i] for i in stills} == {(96, 64)}
    assert batch.images.shape[1:3] == (96, 96), "padded to the largest"
    found = trainer._objective(batch, "full", "first")
    assert all(torch.isfinite(loss) for loss in found.values())


def test_cells_of_the_padding_have_no_part(tmp_path):
    objective = Trainer(micro(), tmp_path)._objective
    grid, anchors = (6, 5), 2
    cell = torch.arange(30.0).view(*grid, 1).expand(*grid, anchors)
    own, logits, deltas = objective._own_cells(
        cell.flatten(), cell[..., None].expand(*grid, anchors, 4).flatten(0, 2), grid, (49, 33)
    )
    assert own == (4, 3)
    wanted = cell[:4, :3].flatten()
    assert torch.equal(logits, wanted)
    assert torch.equal(deltas, wanted[:, None].expand(-1, 4))


def no_objects(rows):
    rows["annotations"] = []


def no_train_frames(rows):
    for frame in rows["images"]:
        frame["is_vid_train_frame"] = False


def outside(rows):
    rows["annotations"][2]["bbox"] = [90, 3, 20, 10]


def unknown_class(rows):
    rows["annotations"][2]["category_id"] = 99


def no_videos(rows):
    rows["videos"] = rows["images"] = rows["annotations"] = []


def no_boxes_field(rows):
    del rows["annotations"]


@pytest.mark.parametrize(("change", "message"), [
    (no_objects, r"annotations\.json: the data set is empty: .* no annotations besides ignore regions"),
    (no_videos, "the data set is empty"),
    (no_train_frames, "has no frame with is_vid_train_frame; wanted one or more"),
    (outside, r"reach outside their frame: train_0000/00000\d\.png: annotation 3: x 90, .* frame is 96 x 64; 1 prob"),
    (unknown_class, "annotation 3 is of category 99; wanted one of"),
    (no_boxes_field, "annotations is missing; wanted a list"),
])  # fmt: skip
def test_annotations_that_are_wrong_are_refused(data, change, message):
    edit(data, change)
    with pytest.raises(DatasetError, match=message):
        videos(data)


def test_missing_images_are_refused(data):
    (data / "images/train_0001/000002.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 15 frames are not there, such as .*train_0001/000002\.png"):
        videos(data)
    with pytest.raises(DatasetError, match="15 of 15 frames are not there"):
        CocoVideos(data / "annotations.json", data / "nowhere")
    with pytest.raises(DatasetError, match=r"nothing\.json cannot be read"):
        CocoVideos(data / "nothing.json", data / "images")


def test_classes_that_disagree_are_refused(data, tmp_path):
    settings = micro(data={"train": [source(data)]}, model={**MODEL, "class_names": ["cat", "dog"]})
    with pytest.raises(DatasetError, match=rf"has the classes {CLASS_NAMES[0]}, .* wanted cat, dog, in this order"):
        Trainer(settings, tmp_path / "run")

    def rename(rows):
        rows["categories"][0]["name"] = "cat"

    other = tmp_path / "other"
    export_synthetic(SyntheticVideos("train", 1, 2, (96, 64)), other)
    edit(other, rename)
    with pytest.raises(DatasetError, match=r"other/annotations\.json has the classes cat, "):
        open_sources(micro(data={"train": [source(data), source(other)]}).data.train)


def test_a_source_of_no_kind_is_refused():
    with pytest.raises(ConfigError, match="wanted `synthetic`, or `annotations` with `images`"):
        open_source(Source(Synthetic(), "a.json", "images"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def test_a_truncated_image_is_named_skipped_and_counted(data, tmp_path, capsys):
    cut(data / "images/train_0001/000002.png")
    settings = micro(data={"train": [source(data)]}, phases=[phase(references="first", iterations=8)])
    trainer = Trainer(settings, tmp_path / "run")
    trainer.run()
    assert trainer.iteration == 8
    assert trainer.damaged >= 1
    assert "skipped: " in capsys.readouterr().err
    last = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert last["damaged_frames"] == trainer.damaged
    again = Trainer(settings, tmp_path / "run")
    assert (again.damaged, again.frames) == (trainer.damaged, trainer.frames)


def test_what_stands_in_for_a_damaged_clip_does_not_depend_on_workers(data):
    cut(data / "images/train_0001/000002.png")
    settings = micro(data={"train": [source(data)]}, phases=[phase(references="first", iterations=6)])
    made = [list(load(Clips(videos(data), settings), 0, 0, 1, workers, pin=False)) for workers in (0, 1)]
    assert [b.names for b in made[0]] == [b.names for b in made[1]]
    assert any(b.damaged for b in made[0])


def test_more_than_a_hundredth_of_damaged_frames_stops_the_run(data, tmp_path):
    for path in (data / "images").glob("train_000[12]/*.png"):
        cut(path)
    settings = micro(data={"train": [source(data)]}, phases=[phase(references="first", iterations=60)])
    with pytest.raises(
        TrainingError, match=r"1\d of \d+ frames drawn could not be read, the last one .*wanted at most 1%"
    ):
        Trainer(settings, tmp_path / "run").run()


def test_a_data_set_of_damaged_frames_stops_at_once(data, tmp_path):
    for path in (data / "images").glob("*/*.png"):
        cut(path)
    settings = micro(data={"train": [source(data)]})
    with pytest.raises(DatasetError, match=r"10 clips drawn one after the other .*check\.py lists all"):
        Trainer(settings, tmp_path / "run").run()


def test_a_file_of_another_size_is_passed_over(data):
    path = data / "images/train_0001/000002.png"
    Image.new("RGB", (96, 63)).save(path)
    with pytest.raises(DatasetError, match="is 96 x 63; the annotations say 96 x 64"):
        videos(data).example(1, 2)
