"""The command that converts: what it finds, what it says, and the class list of a model."""

import subprocess
import sys
from pathlib import Path

import pytest

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation.coco_vid import Category, Dataset, read_dataset
from tests.data_files import picture, rows, text
from training.data.convert import convert, with_classes

ROOT = Path(__file__).parents[3]


def mot(root, *lines, names=("cat", "dog")):
    for t in (1, 2):
        picture(root / f"one/img1/{t:06d}.jpg")
    text(root / "one/gt/gt.txt", *lines)
    text(root / "one/gt/labels.txt", *names)
    return root


def command(*arguments):
    line = [sys.executable, "training/data/convert.py", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_writes_what_the_reader_reads(tmp_path):
    root = mot(tmp_path / "set", "1,1,-1,1,10,8,1,2,0.1", "2,1,40,1,10,8,1,2,1")
    done = command(root, "--output", tmp_path / "data.json", "--min-visibility", "0.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'data.json'}: 1 videos, 2 frames, 1 annotations",
        "1 boxes cut at the edge of their frame, 1 dropped (nothing of them inside)",
        f"note: {root} is read as mot",
    ]
    dataset = read_dataset(tmp_path / "data.json")
    assert dataset == convert(root, "mot", min_visibility=0.3).dataset
    assert rows(dataset, "ignore") == [(True,)]


def test_the_command_says_what_is_wrong(tmp_path):
    done = command(tmp_path, "--output", tmp_path / "x.json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} looks like no layout that is known; wanted one; --format takes")
    root = mot(tmp_path / "set", "1,1,1,1,10,8,1,2,1")
    done = command(root, "--output", tmp_path / "x.json", "--det")
    assert done.stderr == "error: --det is no option of mot; it takes --min-visibility, --names\n"
    done = command(tmp_path / "absent", "--output", tmp_path / "x.json")
    assert done.stderr.startswith(f"error: there is no {tmp_path / 'absent'}; wanted")
    assert not (tmp_path / "x.json").exists()


def test_two_layouts_in_one_folder_are_said(tmp_path):
    mot(tmp_path, "1,1,1,1,10,8,1,2,1")
    text(tmp_path / "data.yaml", "names: [a]")
    with pytest.raises(DatasetError, match="looks like mot, yolo; wanted one"):
        convert(tmp_path)
    assert len(convert(tmp_path, "mot").dataset.frames) == 2
    with pytest.raises(DatasetError, match="--format voc2; wanted one of cvat-video"):
        convert(tmp_path, "voc2")


def test_imagenet_vid_wants_a_split(tmp_path):
    (tmp_path / "Annotations/VID").mkdir(parents=True)
    with pytest.raises(DatasetError, match="wanted --split train or --split val"):
        convert(tmp_path)
    with pytest.raises(DatasetError, match="--det with --split val; wanted train"):
        convert(tmp_path, split="val", det=True)


def test_the_class_list_of_a_model(tmp_path):
    """A detector of more classes than the data shows wants a data set that names them all."""
    root = mot(tmp_path / "set", "1,1,1,1,10,8,1,2,1", "1,2,1,1,10,8,1,1,1")
    text(tmp_path / "names.txt", "bird", "dog", "cat")
    done = command(root, "--output", tmp_path / "data.json", "--classes", tmp_path / "names.txt")
    assert done.returncode == 0, done.stderr
    dataset = read_dataset(tmp_path / "data.json")
    assert dataset.class_names == ["bird", "dog", "cat"]
    assert rows(dataset, "category_id") == [(2,), (3,)]
    with pytest.raises(DatasetError, match="the data set has ant, bee, which --classes lacks"):
        with_classes(Dataset([Category(1, "cat"), Category(2, "bee"), Category(4, "ant")]), ["cat"])
