"""Segments of a video: what they find, joined, is what the unsplit video gives, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdn_engine.config import WHOLE_VIDEO, AttachedConfig, Dials, RelationConfig
from rdn_engine.errors import ConfigError, ResultError
from rdn_engine.frame import Frame
from rdn_engine.host.memory import RelationMemory
from rdn_engine.host.stream import HostStream
from rdn_engine.serve.segment_files import read_segment, write_segment
from rdn_engine.serve.segments import MOST_SEGMENTS, Segment, check_splits, detect_segment, join, lead_frames, split
from tests.serve.contents import telling_detector
from tests.serve.recorded import Given, detector, frames, pictures, told, unsplit

COUNT = 58
T = 3
SEGMENTS = Segment(0, 18), Segment(18, 34), Segment(34, 50), Segment(50, None)
"""Each begins 2 T + L + 1 frames behind a multiple of the ring's 2 T + 2 slots: no frame more is in front of it"""


def dials(**given: object) -> Dials:
    return detector().config.dials.turned({"window": T, "num_reference": 24, "num_support": 12, **given})


def plain() -> list[Frame]:
    return frames(pictures(COUNT))


def damaged() -> list[Frame]:
    """Frames are missing in front of the second segment, so that those before them are in its windows."""
    return [frame for frame in plain() if frame.index % 3 == 0 or frame.index < 4 or frame.index > 40]


def jumping() -> list[Frame]:
    """The clock jumps in the middle of a segment, soon after another segment's lead begins."""
    return [replace(frame, pts=frame.pts + 100 * (frame.index >= 13)) for frame in plain() if frame.pts is not None]


def slow() -> list[Frame]:
    """Gaps that are long beside the first frames' spacing, which few segments see."""
    times = np.cumsum([0.1 if t < 24 or t % 10 else 2.5 for t in range(COUNT)]).tolist()
    return [replace(frame, pts=pts) for frame, pts in zip(plain(), times, strict=True)]


def resized() -> list[Frame]:
    return [replace(f, image=f.image[:, :160]) if 21 <= f.index < 50 else f for f in plain()]


def refused() -> list[Frame]:
    return [replace(f, image=f.image[:4, :4]) if f.index % 7 == 5 else f for f in plain()]


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (plain, {}),
        (plain, {"look_ahead": 0, "edges": "clip"}),
        (plain, {"link": "relations", "link_delay": 5}),
        (plain, {"link": "relations", "link_delay": WHOLE_VIDEO}),
        (plain, {"link": "boxes", "link_delay": 0, "link_gap": 4}),
        (plain, {"link": "seq_nms", "link_delay": WHOLE_VIDEO, "look_ahead": 1}),
        (damaged, {"link": "relations", "link_delay": 5}),
        (jumping, {"link": "relations", "link_delay": 5}),
        (slow, {"link": "relations", "link_delay": WHOLE_VIDEO}),
        (resized, {"link": "boxes", "link_delay": 5}),
        (refused, {"link": "relations", "link_delay": 5}),
    ],
)  # fmt: skip
def test_joined_segments_are_the_unsplit_video(
    source: Callable[[], list[Frame]], given: dict[str, object], tmp_path: Path
) -> None:
    chosen, read = dials(**given), source()
    whole = unsplit(chosen, read)
    found = []
    for i, segment in enumerate(SEGMENTS):
        path = tmp_path / f"{i}.npz"
        write_segment(path, detect_segment(detector(), chosen, lambda: Given(read), segment))
        found.append(read_segment(path))
    assert sum(len(one) for one in whole) > COUNT, "there is something to find"
    assert told(join(found, chosen)) == told(whole)
    assert sum(one.reading.refused for one in found) == sum(len(frame.image) == 4 for frame in read)


@st.composite
def videos(draw: st.DrawFn) -> list[Frame]:
    """Frames that are missing, wrong, of another size, or whose clock stops, jumps or goes back."""
    found, now, side = [], 0.0, 16
    for t in range(draw(st.integers(1, 40))):
        event = draw(st.sampled_from([""] * 12 + ["none", "none", "wrong", "resize", "jump", "back", "stop"]))
        now += {"jump": 99.0, "back": -3.0, "stop": 0.0}.get(event, 0.1)
        side = 36 - side if event == "resize" else side
        image = np.full((4 if event == "wrong" else side, side, 3), t, np.uint8)
        if event != "none":
            found.append(Frame(image, t, None if event == "stop" else now, "given"))
    return found


@settings(deadline=None, max_examples=150)
@given(
    videos(),
    st.lists(st.integers(1, 45), max_size=6, unique=True),
    st.fixed_dictionaries({
        "window": st.integers(0, 3),
        "edges": st.sampled_from(["replicate", "clip"]),
        "link": st.sampled_from(["off", "boxes", "seq_nms"]),
        "link_delay": st.sampled_from([0, 2, WHOLE_VIDEO]),
        "link_gap": st.sampled_from([0, 3]),
    }),
    st.integers(0, 3),
    st.booleans(),
)  # fmt: skip
def test_any_video_cut_anywhere_is_the_unsplit_one(
    read: list[Frame], cuts: list[int], given_dials: dict[str, object], look_ahead: int, torn: bool
) -> None:
    telling = telling_detector()
    chosen = telling.config.dials.turned({**given_dials, "look_ahead": min(look_ahead, given_dials["window"])})  # type: ignore[call-overload]
    ends = sorted(cuts)
    segments = [Segment(first, stop) for first, stop in zip([0, *ends], [*ends, None], strict=True)]
    error = "torn" if torn else None
    found = [detect_segment(telling, chosen, lambda: Given(read, error), one) for one in segments]
    assert told(join(found, chosen)) == told(unsplit(chosen, Given(read, error), telling))


def test_a_segment_has_the_running_sums_of_the_whole_video() -> None:
    """Their last bits hardly ever show in a result, and are the same all the same."""
    chosen = dials()

    def sums(first: int) -> dict[int, list[bytes]]:
        """By the row of the ring, after the result of the frame before the second segment."""
        stream = cast("HostStream", detector().open_stream(chosen))
        for picture in pictures(COUNT)[first : SEGMENTS[1].first + T]:
            stream.push(picture)
        memory = cast("RelationMemory", stream._memory)
        held = memory.window._refinement
        return {int(row): [a[i].tobytes() for a in held._sums] for i, row in enumerate(held._row) if row >= 0}

    whole, begin = sums(0), SEGMENTS[1].first - lead_frames(chosen)
    assert begin == 2 * T + 2
    assert whole == sums(begin)
    # Where frames that decide them are not there, they differ.
    [short] = [first for first in range(begin + 1, begin + 2 * T + 3) if first % (2 * T + 2) == 0]
    assert whole != sums(short)


def test_a_video_that_ends_badly_ends_there_in_its_segments() -> None:
    chosen, read = dials(), plain()[:30]
    segments = [Segment(0, 16), Segment(16, 28), Segment(28, 40), Segment(40, None)]
    found = [detect_segment(detector(), chosen, lambda: Given(read, "torn"), one) for one in segments]
    assert told(join(found, chosen)) == told(unsplit(chosen, Given(read, "torn")))
    assert [one.reading.error for one in found] == [None, "torn", "torn", "torn"]
    assert [len(one.frames) for one in found] == [16, 12, 2, 0]


def test_a_segment_reads_no_further_than_it_must() -> None:
    chosen, seen = dials(look_ahead=2), []

    class Watched(Given):
        def _frames(self):  # type: ignore[no-untyped-def]
            for frame in super()._frames():
                seen.append(frame.index)
                yield frame

    detect_segment(detector(), chosen, lambda: Watched(plain()), Segment(10, 20))
    assert seen[-1] in (20 + 1, 20 + 2)


def test_videos_are_cut_into_segments_of_about_that_length() -> None:
    assert split(100, 40) == (Segment(0, 40), Segment(40, None))
    assert split(100, 30) == (Segment(0, 30), Segment(30, 60), Segment(60, None))
    assert split(None, 30) == split(20, 30) == (Segment(0, None),)
    assert len(split(2**40, 1)) == MOST_SEGMENTS
    assert split(2**40, 1)[-1].first < 2**40


@pytest.mark.parametrize(
    ("given", "device", "words"),
    [
        ({"interval": 2}, "cpu", "interval is 2"),
        ({"still": 1.0}, "cpu", "still 1"),
        ({"sampling": "global"}, "cpu", "sampling is 'global'"),
        ({}, "cuda", "device is 'cuda'"),
    ],
)
def test_what_has_a_memory_without_an_end_is_not_split(given: dict[str, object], device: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{words}.*leave --segment-frames out"):
        check_splits(detector().config, dials(**given), device)  # type: ignore[arg-type]
    check_splits(detector().config, dials(), "cpu")


def test_averages_with_earlier_results_are_not_split() -> None:
    relation = RelationConfig(dim=64, heads=4, num_basic=0, advanced=False, attention="cosine_score")
    names = detector().config.class_names
    attached = AttachedConfig(True, len(names), features=64, features_reg=64, objectness=True)
    config = replace(detector().config, relation=relation, attached=attached)
    with pytest.raises(ConfigError, match="cosine_score"):
        check_splits(config, dials(), "cpu")


def test_no_file_of_a_segment_is_an_error(tmp_path: Path) -> None:
    for name, data in (("a", b""), ("b", b"PK\x03\x04"), ("c", b"text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ResultError, match="no segment of a video"):
            read_segment(tmp_path / name)
    np.savez(tmp_path / "d.npz", about=np.frombuffer(b"{}", np.uint8))
    with pytest.raises(ResultError, match="no segment of a video"):
        read_segment(tmp_path / "d.npz")
