"""Whatever stands in a file from outside is read, or refused by a typed error: never another one."""

import json
import random
import shutil
from pathlib import Path

import pytest

from rdn_engine.errors import DatasetError
from tests.data_files import picture
from tests.training.data.readers.test_cvat import box, export, track
from tests.training.data.readers.test_json_layouts import bdd100k, burst, tao
from tests.training.data.readers.test_label_studio import export as studio
from tests.training.data.readers.test_label_studio import key, region, task
from tests.training.data.readers.test_mot import mot
from tests.training.data.readers.test_text_layouts import darklabel, kitti, yolo
from tests.training.data.readers.test_visdrone import visdrone
from tests.training.data.readers.test_youtube_vis import lv_vis, run_lengths, youtube_vis
from training.data.formats import FORMATS

MINIATURES = Path(__file__).parents[3] / "data/miniatures"


def copied(root, where):
    shutil.copytree(MINIATURES / where, root / "copy")
    return root / "copy"


def first(path, pattern):
    return next(iter(sorted(path.rglob(pattern))))


JSON = {
    "coco": lambda root: first(copied(root, "datumaro/coco"), "*.json"),
    "coco-video": tao,
    "datumaro": lambda root: first(copied(root, "datumaro/datumaro"), "*.json"),
    "label-studio": lambda root: studio(root, task(region(key(1, 0), key(3, 50, enabled=False)))),
    "bdd100k": lambda root: first(bdd100k(root), "*.json"),
    "burst": burst,
    "youtube-vis": lambda root: (
        lv_vis(root, {"size": [24, 32], "counts": run_lengths(1, 2, 3, 5)}, None)
        if root.name.endswith("1")
        else youtube_vis(root)
    ),
}
TEXT = {
    "mot": lambda root: (mot(root, "1,1,1,1,10,8,1,1,1", "2,-1,4,4,10,8,0,7,0.5"), "*/gt/gt.txt"),
    "visdrone": lambda root: (visdrone(root, "1,7,0,0,10,8,1,4,0,0", "2,0,20,10,40,4,0,0,0,0"), "*.txt"),
    "kitti": lambda root: (kitti(root, "0 7 Car 0 0 -1.5 2 3 12 11", "1 -1 DontCare -1 -1 -10 2 1 4 4"), "*/0000.txt"),
    "darklabel": lambda root: (darklabel(root, "1,car,7,8,6,16,12"), ""),
    "yolo": lambda root: (yolo(root, "1 0.5 0.5 0.5 0.5", "0 0 0 0.5 0 0.5 0.5"), "*.txt"),
    "yolo settings": lambda root: (yolo(root, "1 0.5 0.5 0.5 0.5"), "data.yaml"),
    "voc": lambda root: (copied(root, "supervision/voc"), "*.xml"),
    "cvat-images": lambda root: (copied(root, "datumaro/cvat") / "train.xml", ""),
    "cvat-video": lambda root: (export(root, track(0, "car", box(1, 2), box(5, 10)), frames=range(6)), ""),
}
NUMBERS = (-1, 0, 1, 3, 0.5, 1e400, float("nan"), 10**40)
VALUES = (*NUMBERS, None, True, "", "a", "1", "\ud800", "a\0b", "../a", "http://[", [], [1], {}, {"a": 1})
PIECES = ("", "-", "9", ".", "e", "nan", "1e999", ",", " ", "\n", "<", '"', "é", "\0", "..", "\\")


def places(value):
    """Every container and key in a JSON value"""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in keys:
        yield value, name
        yield from places(value[name])


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("form", [0, 1])
def test_damaged_json(tmp_path, name, form):
    root = tmp_path / f"set{form}"
    root.mkdir()
    path = JSON[name](root)
    sound = path.read_text()
    FORMATS[name].read(path)
    rng = random.Random(form)
    count = len(list(places(json.loads(sound))))
    for i in range(count):
        for value in rng.sample(VALUES, 4):
            damaged = json.loads(sound)
            container, place = list(places(damaged))[i]
            container[place] = value
            path.write_text(json.dumps(damaged))
            try:
                FORMATS[name].read(path)
            except DatasetError:
                continue


@pytest.mark.parametrize("name", TEXT)
def test_damaged_text(tmp_path, name):
    made, pattern = TEXT[name](tmp_path)
    path = first(made, pattern) if pattern else made
    reader = FORMATS[name.split()[0]].read
    reader(made)
    sound, rng = path.read_text(), random.Random(0)
    for _ in range(150):
        damaged = sound
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(damaged) + 1)
            damaged = damaged[:at] + rng.choice(PIECES) + damaged[at + rng.choice([0, 1, 1, 4]) :]
        path.write_text(damaged, encoding="utf-8")
        try:
            reader(made)
        except DatasetError:
            continue


def test_pictures_that_are_none(tmp_path):
    """A reader that takes the size from an image says which one it cannot read."""
    path = darklabel(tmp_path, "1,car,7,8,6,16,12")
    picture(tmp_path / "street/00001.png")
    (tmp_path / "street/00001.png").write_bytes(b"none")
    with pytest.raises(DatasetError, match=r"00001.png is no image that can be read"):
        FORMATS["darklabel"].read(path)
