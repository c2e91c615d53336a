"""Lines of results and the annotated frames that they are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rdn_engine.errors import DatasetError, ResultError
from rdn_engine.evaluation.coco_vid import Category, Dataset, Frame, Video
from rdn_engine.evaluation.join import join
from rdn_engine.evaluation.lines import Line, read_lines
from rdn_engine.results import Detections

NAMES = ("dog", "cat")


def dataset(videos: Sequence[str] = ("street/a", "street/b"), files: str = "{video}/{t:06d}.png") -> Dataset:
    """Two classes, in another order than the model's; three frames a video."""
    made = Dataset([Category(3, "cat"), Category(8, "dog")], [Video(v, name) for v, name in enumerate(videos, 1)])
    for v, name in enumerate(videos, 1):
        made.frames += [Frame(10 * v + t, v, t, files.format(video=name, t=t), 64, 48) for t in range(3)]
    return made


def line(source: str, index: int, number: int = 1) -> Line:
    found = Detections(
        xyxy=np.array([[index, 0, 9, 9]], np.float32),
        confidence=np.array([0.5], np.float32),
        class_id=np.array([1]),
        tracker_id=None,
        class_names=NAMES,
        frame_index=index,
        pts=None,
        source_id=source,
        height=48,
        width=64,
        pool_fill=1,
        lookahead=0,
        epoch=0,
    )
    return Line(f"out.jsonl:{number}", found)


def run(source: str) -> list[Line]:
    return [line(source.format(t), t) for t in range(3)]


@pytest.mark.parametrize(
    "sources",
    [
        ("/data/images/street/a/{:06d}.png", "/data/images/street/b/{:06d}.png"),
        ("a/{:06d}.png", "./b/{:06d}.png"),
        ("street/a.mp4", "clips/street/b.mkv"),
        ("a.mp4", "b"),
    ],
)
def test_images_and_videos_find_their_frames_by_name(sources: tuple[str, str]) -> None:
    joined = join([*run(sources[1]), *run(sources[0])], dataset(), {})
    assert {i: found.xyxy[0, 0] for i, found in joined.found.items()} == {
        10 * v + t: t for v in (1, 2) for t in range(3)
    }
    one = joined.found[10]
    assert [one.class_names[c] for c in one.class_id] == ["cat"], "classes go by their names"
    assert one.class_names == ("cat", "dog")
    assert [placed.video for placed in joined.placed] == [2, 2, 2, 1, 1, 1]


def test_a_longer_path_decides_between_frames_of_one_name() -> None:
    data = dataset(("a", "more/a"))
    joined = join([*run("x/more/a/{:06d}.png"), *run("y/a/{:06d}.png")], data, {"y/a": "a"})
    assert [placed.video for placed in joined.placed] == [2, 2, 2, 1, 1, 1]
    with pytest.raises(DatasetError, match=r"out.jsonl:1: the source '000000.png' is any of .*--video \.=NAME"):
        join([line("000000.png", 0)], data, {})


@pytest.mark.parametrize("named", [{"rtsp://door": "street/a"}, {"door": "street/a"}])
def test_a_source_of_any_name_can_be_named(named: dict[str, str]) -> None:
    joined = join([*run("rtsp://door"), *run("b.mp4")], dataset(), named)
    assert [placed.video for placed in joined.placed] == [1, 1, 1, 2, 2, 2]


def test_images_of_a_named_folder_go_by_their_names() -> None:
    lines = [line(f"else/frames/{t:06d}.png", 2 - t) for t in range(3)]
    joined = join([*lines, *run("b")], dataset(), {"else/frames": "street/a"})
    assert [joined.found[10 + t].frame_index for t in range(3)] == [2, 1, 0]


def test_frames_that_the_data_set_leaves_out_are_kept_apart() -> None:
    data = dataset()
    data.frames = [replace(f, frame_id=10 * f.frame_id) for f in data.frames]
    lines = [line(source, t) for source in ("a.mp4", "b.mp4") for t in range(21)]
    joined = join(lines, data, {})
    assert sum(placed.frame is None for placed in joined.placed) == 36
    assert [joined.found[10 + t].frame_index for t in range(3)] == [0, 10, 20]


def test_frames_without_a_line_are_refused_or_empty() -> None:
    lines = run("a.mp4")[:2]
    message = (
        r"4 of 6 annotated frames have no result: no line of \['street/b'\], none of \['frame 2 of street/a'\]; "
        r"wanted a line each .*--allow-missing"
    )
    with pytest.raises(DatasetError, match=message):
        join(lines, dataset(), {})
    joined = join(lines, dataset(), {}, allow_missing=True)
    assert joined.absent == 4
    assert [len(joined.found[i]) for i in (10, 11, 12, 20)] == [1, 1, 0, 0]


def test_what_cannot_be_told_is_refused() -> None:
    def refused(lines: list[Line], message: str, **named: str) -> None:
        with pytest.raises(DatasetError, match=message):
            join(lines, dataset(), named)

    refused(
        run("door.mp4"),
        r"out.jsonl:1: the source 'door.mp4' is no video and no image .*--video door.mp4=NAME.*'street/a'",
    )
    refused(
        run("a"),
        r"--video a=c: 0 videos of the data set are named 'c'; wanted one of \['street/a', 'street/b'\]",
        a="c",
    )
    refused(run("a"), r"--video names \['x'\]; the results come from \['a'\]", x="street/b")
    refused([line("a", 0), line("a", 0, 2)], "out.jsonl:2 and out.jsonl:1 are both of street/a/000000.png")
    other = replace(line("a", 0).result, width=128)
    refused([Line("f:1", other)], "f:1: the frame has 128 x 48 pixels, and street/a/000000.png is annotated at 64 x 48")
    foreign = replace(line("a", 0).result, class_names=("dog", "owl"))
    refused([Line("f:1", foreign)], r"classes \['owl'\], which are none of the data set's \['cat', 'dog'\]")


def test_lines_of_several_files_share_their_classes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json.dumps(line("a", 0).result.to_dict()) + "\n\n")
    second.write_text(json.dumps(replace(line("b", 0).result, class_id=np.array([0])).to_dict()))
    lines = read_lines([first, second])
    assert [one.result.class_names for one in lines] == [NAMES, NAMES]
    assert [one.where for one in lines] == [f"{first}:1", f"{second}:1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x.jsonl has no line; wanted one a frame"),
        ("{}\n", r"x.jsonl:1: line.detections is None"),
        ("\n{", r"x.jsonl:2 is not JSON"),
        ("\udcff", r"x.jsonl is no text in UTF-8"),
        (None, r"x.jsonl cannot be read: No such file"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "x.jsonl"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ResultError, match=message):
        read_lines([path])


def test_two_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    other = replace(line("a", 1).result, class_names=("dog", "owl"))
    path.write_text("\n".join(json.dumps(r.to_dict()) for r in (line("a", 0).result, other)))
    with pytest.raises(ResultError, match=r"x.jsonl:2: class 1 is 'owl', and 'cat' in a line before it"):
        read_lines([path])
