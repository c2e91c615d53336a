"""Each kind of problem is provoked in a sound miniature, one at a time, and found by its name."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video, write_dataset
from tests.data_files import ENCODINGS, encode
from training.data.check import KINDS, check_dataset, check_file, print_report
from training.data.problem import Problem

ROOT = Path(__file__).parents[3]
SIZE = (32, 24)


@pytest.fixture
def sound(tmp_path):
    """Two videos, a/0.png a/1.png and b/0.jpg b/1.jpg, with a cat and a dog in every frame"""
    dataset = Dataset([Category(1, "cat"), Category(5, "dog")], [Video(1, "a"), Video(2, "b")])
    rng = np.random.default_rng(0)
    for video, suffix in ((1, "png"), (2, "jpg")):
        for t in (0, 1):
            name, number = f"{'_ab'[video]}/{t}.{suffix}", len(dataset.frames) + 1
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(tmp_path / name)
            dataset.frames.append(Frame(number, video, t, name, *SIZE))
            for track, category in enumerate((1, 5)):
                box = (0.0, 0.0, 31.0, 23.0) if track else (3.0, 4.0, 10.0, 12.0)
                row = Annotation(len(dataset.annotations) + 1, number, category, box, 10 * video + track)
                dataset.annotations.append(row)
    return dataset


def problems(dataset, images, **options):
    return list(check_dataset(dataset, "data.json", images, **options))


def found(dataset, images, **options):
    return [(p.kind, p.where) for p in problems(dataset, images, **options)]


def change(rows, index, **values):
    rows[index] = dataclasses.replace(rows[index], **values)


def test_nothing_is_wrong(sound, tmp_path):
    assert found(sound, tmp_path, classes=["cat", "dog"]) == []
    assert found(sound, tmp_path, decode=True) == []


def test_an_empty_data_set(sound, tmp_path):
    assert [what for _, what in found(Dataset(), tmp_path)] == ["data.json"] * 4
    assert {p.kind for p in problems(Dataset(), tmp_path)} == {"empty"}
    sound.videos.append(Video(3, "c"))
    assert found(sound, tmp_path) == [("empty", "c")]
    sound.videos.pop()
    sound.annotations[:] = [dataclasses.replace(a, ignore=True) for a in sound.annotations]
    (problem,) = problems(sound, tmp_path)
    assert problem == Problem("empty", "data.json", "it has no annotations besides ignore regions; wanted one or more")


@pytest.mark.parametrize(
    ("classes", "messages"),
    [
        (["cat", "dog", "fox"], ["it lacks fox of the class list"]),
        (["cat"], ["it has dog, which the class list lacks"]),
        (["cow", "dog"], ["it lacks cow of the class list", "it has cat, which the class list lacks"]),
        (["dog", "cat"], ["its classes by id are cat, dog; wanted dog, cat"]),
    ],
)
def test_a_class_list_that_disagrees(sound, tmp_path, classes, messages):
    assert problems(sound, tmp_path, classes=classes) == [Problem("classes", "data.json", m) for m in messages]


def test_a_class_of_two_ids(sound, tmp_path):
    sound.categories.append(Category(9, "cat"))
    assert found(sound, tmp_path) == [("classes", "data.json")]


def test_an_unknown_class(sound, tmp_path):
    change(sound.annotations, 2, category_id=7)
    (problem,) = problems(sound, tmp_path)
    assert problem == Problem("unknown class", "a/1.png", "annotation 3 is of category 7; wanted one of [1, 5]")


def test_a_missing_frame(sound, tmp_path):
    (tmp_path / "b/0.jpg").unlink()
    assert found(sound, tmp_path) == [("missing frame", "b/0.jpg")]


@pytest.mark.parametrize("name", ["a/1.png", "b/1.jpg"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, -40])
def test_an_unreadable_or_truncated_frame(sound, tmp_path, name, keep):
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    assert found(sound, tmp_path) == [("unreadable frame", name)]


def test_decoding_finds_damage_that_the_header_does_not_show(sound, tmp_path):
    path = tmp_path / "a/0.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert found(sound, tmp_path) == []
    assert found(sound, tmp_path, decode=True) == [("unreadable frame", "a/0.png")]


def test_bytes_after_the_end_of_an_image_are_no_damage(sound, tmp_path):
    with (tmp_path / "b/0.jpg").open("ab") as file:
        file.write(b"a trailer of a camera" * 20)
    assert found(sound, tmp_path) == []


def test_an_image_too_large_to_open_is_named(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert {kind for kind, _ in found(sound, tmp_path)} == {"unreadable frame"}


def test_a_frame_of_another_size_than_stated(sound, tmp_path):
    Image.new("RGB", (30, 24)).save(tmp_path / "a/0.png")
    (problem,) = problems(sound, tmp_path)
    assert problem == Problem("frame size", "a/0.png", "the file is 30 x 24; the annotations say 32 x 24")


def test_a_video_of_two_sizes(sound, tmp_path):
    Image.new("RGB", (40, 24)).save(tmp_path / "a/1.png")
    change(sound.frames, 1, width=40)
    (problem,) = problems(sound, tmp_path)
    assert problem.kind == "video size"
    assert problem.what == "its frames are 32 x 24 from a/0.png, 40 x 24 from a/1.png; wanted one size"


def test_frame_ids_below_zero(sound, tmp_path):
    change(sound.frames, 2, frame_id=-1)
    (problem,) = problems(sound, tmp_path)
    assert problem == Problem("frame order", "b/0.jpg", "frame_id -1 in video b; wanted 0 or more")


@pytest.mark.parametrize("frame_id", [0, -3])
def test_frame_ids_that_do_not_grow(sound, tmp_path, frame_id):
    change(sound.frames, 3, frame_id=frame_id)
    assert found(sound, tmp_path) == [("frame order", "b/1.jpg")]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((-1, 0, 5, 5), "box outside"),
        ((0, -1, 5, 5), "box outside"),
        ((0, 0, 32, 5), "box outside"),
        ((0, 0, 5, 24), "box outside"),
        ((40, 40, 50, 50), "box outside"),
        ((5, 5, 4, 9), "empty box"),
        ((5, 5, 9, 4), "empty box"),
        ((5, 5, 1, 9), "empty box"),
    ],
)
def test_a_bad_box(sound, tmp_path, box, kind):
    change(sound.annotations, 0, xyxy=box)
    (problem,) = problems(sound, tmp_path)
    assert (problem.kind, problem.where) == (kind, "a/0.png")
    assert problem.what.startswith(f"annotation 1: x {box[0]}, y {box[1]}, width {box[2] - box[0] + 1}")


def test_boxes_at_the_very_edge_are_sound(sound, tmp_path):
    change(sound.annotations, 0, xyxy=(31, 23, 31, 23))
    change(sound.annotations, 1, xyxy=(0, 0, 31.0004, 23))
    assert found(sound, tmp_path) == []


def test_a_track_twice_in_a_frame(sound, tmp_path):
    change(sound.annotations, 1, instance_id=10)
    (problem,) = problems(sound, tmp_path)
    assert problem == Problem("duplicated track", "a/0.png", "track 10 occurs 2 times; wanted once in a frame")
    change(sound.annotations, 0, instance_id=None)
    change(sound.annotations, 1, instance_id=None)
    assert found(sound, tmp_path) == []


def test_annotations_that_cannot_be_read(tmp_path):
    (tmp_path / "data.json").write_text("{")
    dataset, rows = check_file(tmp_path / "data.json", tmp_path, None, False)
    assert dataset == Dataset()
    assert [p.kind for p in rows] == ["annotations"]


def test_arguments_at_fault(sound, tmp_path):
    write_dataset(sound, tmp_path / "data.json")
    with pytest.raises(DatasetError, match=r"--images .* is no folder"):
        check_file(tmp_path / "data.json", tmp_path / "absent", None, False)
    with pytest.raises(DatasetError, match=r"--classes .* cannot be read"):
        check_file(tmp_path / "data.json", tmp_path, tmp_path / "absent.txt", False)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_class_names_may_begin_with_a_byte_order_mark(sound, tmp_path, encoding):
    data, names = tmp_path / "data.json", tmp_path / "names.txt"
    write_dataset(sound, data)
    names.write_text("cat\ndog\n")
    encode(encoding, data, names)
    assert check_file(data, tmp_path, names, False) == (sound, [])


def test_the_report_gives_counts_and_the_first_examples(sound, capsys):
    print_report(sound, [Problem("box outside", f"{i}.jpg", "far") for i in range(7)], [])
    printed = capsys.readouterr().out
    assert "2 videos, 4 frames, 8 annotations, 2 classes" in printed
    assert f"7 x box outside: {KINDS['box outside']}" in printed
    assert "  4.jpg: far\n  and 2 more\n" in printed
    assert "5.jpg" not in printed
    assert printed.endswith("\n7 problems\n")


def check(*arguments):
    command = [sys.executable, "training/data/check.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(sound, tmp_path):
    data, names = tmp_path / "data.json", tmp_path / "names.txt"
    write_dataset(sound, data)
    names.write_text("cat\ndog\n")
    done = check(data, "--images", tmp_path, "--classes", names)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("nothing is wrong\n")
    (tmp_path / "a/0.png").unlink()
    done = check(data, "--images", tmp_path, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["frames"], report["counts"]) == (4, {"missing frame": 1})
    assert report["problems"][0]["where"] == "a/0.png"
    assert report["doubts"] == []
    done = check(data, "--images", tmp_path / "absent")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --images")


def test_file_names_that_start_from_another_folder(sound, tmp_path):
    """As those of mmtracking's converter, which begin below Data/VID."""
    write_dataset(sound, tmp_path / "data.json")
    (tmp_path / "set/Data/VID").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / "set/Data/VID" / name)
    for images in (tmp_path / "set", tmp_path / "set/Data", tmp_path / "set/Data/VID/a"):
        _, (problem,) = check_file(tmp_path / "data.json", images, None, False)
        wanted = f"the file names start from another folder; --images {tmp_path / 'set/Data/VID'} has them"
        assert problem == Problem("missing frame", str(images), wanted)
    assert check_file(tmp_path / "data.json", tmp_path / "set/Data/VID", None, False)[1] == []
    (tmp_path / "none").mkdir()
    assert len(check_file(tmp_path / "data.json", tmp_path / "none", None, False)[1]) == len(sound.frames)


def test_doubts_of_one_set_against_another(sound, tmp_path):
    """Training and validation share video a under another name; doubts are no fault to the exit code."""
    write_dataset(sound, tmp_path / "train.json")
    other = dataclasses.replace(sound, annotations=[a for a in sound.annotations if a.category_id == 1])
    (tmp_path / "val").mkdir()
    other.frames = [dataclasses.replace(f, file_name=f.file_name.replace("a/", "copy/")) for f in sound.frames[:2]]
    other.annotations = [a for a in other.annotations if a.image_id <= 2]
    other.videos = [Video(1, "copy")]
    (tmp_path / "val/copy").mkdir()
    for t in (0, 1):
        (tmp_path / f"val/copy/{t}.png").write_bytes((tmp_path / f"a/{t}.png").read_bytes())
    write_dataset(other, tmp_path / "val/val.json")
    (tmp_path / "training.yaml").write_text("model: {rpn: {anchor_sizes: [256]}}")
    done = check(
        tmp_path / "train.json", "--images", tmp_path, "--against", tmp_path / "val/val.json",
        "--against-images", tmp_path / "val", "--config", tmp_path / "training.yaml", "--html", tmp_path / "page.html",
        "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["counts"] == {"anchors": 1, "shared video": 1, "class of one set": 1}
    assert report["doubts"][2]["what"] == "dog is in this set and not in the other one"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    done = check(tmp_path / "train.json", "--images", tmp_path, "--against", tmp_path / "val/val.json")
    assert done.stdout.endswith("nothing is wrong, 1 doubts: look at them\n")
    done = check(tmp_path / "train.json", "--images", tmp_path, "--against", tmp_path / "absent.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
