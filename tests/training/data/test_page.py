"""The report as a page: well-formed, alone, with every picture and number in its place."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from rdn_engine.evaluation.coco_vid import Annotation, Category, Dataset, Frame, Video
from training.data.anchors import AnchorFit
from training.data.page import PICTURES, page
from training.data.problem import Problem

NAME = "<b>cat & dog"
"""Names come from files of others."""


@pytest.fixture
def dataset(tmp_path):
    made = Dataset([Category(1, NAME), Category(2, "fox")], [Video(1, "a"), Video(2, "b")])
    for video in (1, 2):
        for t in range(30):
            frame = Frame(len(made.frames) + 1, video, t, f"{'_ab'[video]}{t}.png", 64, 48)
            made.frames.append(frame)
            Image.new("RGB", (64, 48), (t, 90, 150)).save(tmp_path / frame.file_name)
            box = Annotation(len(made.annotations) + 1, frame.id, 1, (2.0 + t, 3.0, 11.0 + t, 10.5), video)
            made.annotations.append(box)
    made.annotations.append(Annotation(99, 1, 2, (0, 0, 31, 23), ignore=True))
    return made


FIT = AnchorFit((8, 16), 0.25, (9,), 0.75, np.array([3.0, 9, 9, 12, 60]))


def tree_of(text):
    """HTML that is XML as well once its document type and its one open tag are taken away"""
    body = re.sub(r"<!doctype html>|<meta[^>]*>", "", text).replace("<br>", "<br/>")
    return ET.fromstring(body)


def test_the_page(dataset, tmp_path):
    problems = [Problem("box outside", "b7.png", "annotation <7>")]
    doubts = [Problem("still box", f"a{t}.png", f"track {t}") for t in range(12)]
    text = page(dataset, "sets/<data>.json", tmp_path, problems, doubts, FIT)
    tree = tree_of(text)
    words = " ".join(tree.itertext())
    assert "sets/<data>.json" in words
    assert "1 x box outside" in words
    assert "12 x still box" in words
    assert "and 4 more" in words  # eight are shown
    assert "25% are met at IoU 0.5 by anchor_sizes [8, 16] (lines), 75% would be by [9]" in words
    assert [e.text for e in tree.iter("b")][:6] == ["2", "60", "60", "1", "2", "2"]
    pictures = tree.findall(".//div[@class='pictures']/figure")
    assert len(pictures) == PICTURES
    captions = ["".join(p.find("figcaption").itertext()) for p in pictures]
    assert captions[0].startswith("a0.pngstill box: track 0")
    assert "b7.pngbox outside: annotation <7>" in captions
    assert sum("still box" in caption for caption in captions) == 3  # one kind does not take all places
    assert any(caption.startswith("b") and "box outside" not in caption for caption in captions)


def test_a_box_is_drawn_where_it_is(dataset, tmp_path):
    tree = tree_of(page(dataset, "data.json", tmp_path, [], [Problem("x", "a0.png", "y")], None))
    svg = tree.find(".//div[@class='pictures']/figure/svg")
    assert svg.get("viewBox") == "0 0 64 48"
    box, region = svg.findall("rect")
    assert [box.get(side) for side in ("x", "y", "width", "height")] == ["2.00", "3.00", "10.00", "8.50"]
    assert [region.get(side) for side in ("x", "y", "width", "height")] == ["0.00", "0.00", "32.00", "24.00"]
    assert (box.get("stroke-dasharray"), region.get("stroke-dasharray") is not None) == (None, True)
    assert [text.text for text in svg.findall("text")] == [f"{NAME} 1", "fox"]


def test_the_page_loads_nothing(dataset, tmp_path):
    text = page(dataset, "data.json", tmp_path, [], [], FIT)
    links = re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?([^\"')>]{0,30})", text)
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert "<script" not in text
    assert "<b>cat" not in text


def test_an_empty_set_and_missing_frames(dataset, tmp_path):
    tree_of(page(Dataset(), "data.json", tmp_path, [], [], None))
    for frame in dataset.frames:
        (tmp_path / frame.file_name).unlink()
    tree = tree_of(page(dataset, "data.json", tmp_path, [], [], FIT))
    assert tree.findall(".//div[@class='pictures']/figure") == []
