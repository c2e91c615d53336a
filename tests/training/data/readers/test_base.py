"""What readers share: XML from outside, files without end, numbered images."""

import pytest

from rdn_engine.errors import DatasetError
from rdn_engine.evaluation import coco_vid
from rdn_engine.evaluation.coco_vid import read_json
from tests.data_files import picture, text
from training.data.builder import Builder
from training.data.formats import FORMATS
from training.data.readers.base import each_image, numbered_images, read_lines, read_tree

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{BOMB}<annotations>&c;</annotations>".encode(), "has a DOCTYPE; wanted plain XML"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "has a DOCTYPE"),
        (b"<a>&b;</a>", "is not XML: undefined entity"),
        (b"<a>", "is not XML"),
        (b"", "is not XML"),
    ],
)
def test_xml_has_no_entities(tmp_path, content, message):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        read_tree(path)
    assert str(path) in str(caught.value)
    for name in ("cvat-video", "cvat-images"):
        with pytest.raises(DatasetError, match=message):
            FORMATS[name].read(path)
    (tmp_path / "Annotations").mkdir()
    path.rename(tmp_path / "Annotations/a.xml")
    with pytest.raises(DatasetError, match=message):
        FORMATS["voc"].read(tmp_path)


@pytest.mark.parametrize("read", [read_tree, read_lines, read_json])
def test_a_file_without_end_is_not_read(tmp_path, monkeypatch, read):
    monkeypatch.setattr(coco_vid, "MOST_BYTES", 8)
    text(tmp_path / "a", '{"a": "bcdef"}')
    with pytest.raises(DatasetError, match=r"a has 15 bytes; wanted at most 8"):
        read(tmp_path / "a")


def test_images_by_the_number_at_the_end_of_their_names(tmp_path):
    for name in ("frame_000010.PNG", "frame_2.jpg", "cover.png", "003.jpeg", "notes7.txt"):
        (tmp_path / name).touch()
    assert list(numbered_images(tmp_path).items()) == [
        (2, tmp_path / "frame_2.jpg"),
        (3, tmp_path / "003.jpeg"),
        (10, tmp_path / "frame_000010.PNG"),
    ]
    picture(tmp_path / "3.png")
    with pytest.raises(DatasetError, match=r"has 003.jpeg and 3.png; wanted one image of each number"):
        numbered_images(tmp_path)


def test_images_of_a_folder_as_a_video():
    builder = Builder([(1, "cat")])
    names = ["b/x_12.png", "a/3.png", "b/x_4.png", "c9.png"]
    assert list(each_image(builder, dict.fromkeys(names, (32, 24)), video=True)) == [
        "b/x_4.png",
        "b/x_12.png",
        "a/3.png",
        "c9.png",
    ]
    assert [v.name for v in builder.dataset.videos] == ["b", "a", "video"]
    assert [f.frame_id for f in builder.dataset.frames] == [0, 8, 0, 0]
    with pytest.raises(DatasetError, match=r"x.png has no number at its end"):
        list(each_image(Builder([]), {"x.png": (1, 1)}, video=True))
    with pytest.raises(DatasetError, match=r"a/03.png and a/3.png have the same number"):
        list(each_image(Builder([]), {"a/3.png": (1, 1), "a/03.png": (1, 1)}, video=True))


def test_frames_outside_their_folder_or_before_the_first_are_refused():
    builder = Builder([(1, "cat")])
    builder.video("a")
    for name in ("../a.png", "/a.png", "a\\b.png", ""):
        with pytest.raises(DatasetError, match="wanted a path inside the folder of images"):
            builder.frame(name, 32, 24, 0)
    with pytest.raises(DatasetError, match=r"has the position -1 in its video; wanted 0 or more"):
        builder.frame("a.png", 32, 24, -1)
    builder.frame("a.png", 32, 24, 0)
    for track in (-1, "-1", "", None):
        builder.box((0, 0, 5, 5), 1, track)
    assert {a.instance_id for a in builder.dataset.annotations} == {None}
