"""Decoding: every picture with its number and time, what is damaged counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdn_engine.errors import VideoError
from rdn_engine.media.source import open_source
from tests.media.clips import FPS, LOSSY, coded_picture, damage, encode, picture, read


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("mpeg4", "a.mp4"), ("mjpeg", "a.avi")])
def test_video_gives_every_frame_with_index_time_and_colour(tmp_path: Path, codec: str, name: str) -> None:
    path = encode(tmp_path / name, codec)
    with open_source(path) as video:
        assert video.fps == FPS
        assert video.frames_hint == 20
        frames = list(video)
    assert [f.index for f in frames] == list(range(20))
    assert [f.pts for f in frames] == pytest.approx([t / FPS for t in range(20)])
    assert video.skipped == 0
    for t, frame in enumerate(frames):
        assert frame.source_id == str(path)
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - picture(t)).mean() < LOSSY


VLC = {"coder": "vlc"}
"""Of H.264's two entropy coders the one in which a decoder notices noise; in the other only headers can be checked."""


@pytest.mark.parametrize(
    ("codec", "name", "keep", "options"),
    [
        ("libx264", "a.mp4", 0, {"bf": "0", "g": "250"}),
        ("libx264", "a.mp4", 0, {"bf": "2", "b-adapt": "0", "g": "10"}),
        ("libx264", "a.mp4", 40, {"bf": "0", "g": "250", **VLC}),
        ("libx264", "a.mp4", 40, {"bf": "2", "b-adapt": "0", "g": "10", **VLC}),
        ("mjpeg", "a.avi", 0, {}),
        ("mjpeg", "a.avi", 700, {}),
        ("mpeg4", "a.mp4", 0, {}),
        ("mpeg4", "a.mp4", 40, {}),
        ("mpeg4", "a.avi", 40, {}),
    ],
)
@pytest.mark.parametrize("nth", [7, 8, 9, 10])
def test_damaged_frame_is_skipped_and_counted_and_decoding_goes_on(
    tmp_path: Path, codec: str, name: str, keep: int, options: dict[str, str], nth: int
) -> None:
    path = encode(tmp_path / name, codec, grain=60, **options)
    whole, _ = read(path)
    damage(path, nth, keep)
    frames, skipped = read(path)
    assert skipped >= 1
    assert len(frames) + skipped == 20
    # Numbers follow the time, so that the skipped ones leave their gaps.
    assert [f.index for f in frames] == [round(f.pts * FPS) for f in frames if f.pts is not None]
    assert frames[-1].index == 19
    # What was coded before the damage is untouched.
    assert all(np.array_equal(f.image, whole[f.index].image) for f in frames if f.index < 5)


def test_several_damaged_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    for nth in (0, 7, 8, 19):
        damage(path, nth)
    frames, skipped = read(path)
    assert skipped == 4
    assert [f.index for f in frames] == [t for t in range(20) if t not in (0, 7, 8, 19)]


def test_all_frames_damaged_is_an_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", frames=3)
    for nth in range(3):
        damage(path, nth)
    with pytest.raises(VideoError, match=r"no frame could be decoded \(3 damaged\)"):
        read(path)


def test_cut_short_video_gives_what_is_there(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    start, size = coded_picture(path, 12)
    path.write_bytes(path.read_bytes()[: start + size // 2])
    frames, skipped = read(path)
    assert [f.index for f in frames] == list(range(12))
    assert skipped == 1


def test_early_end_of_iteration_closes_the_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames=10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with open_source(path) as video:
            for _frame in video:
                break
    assert len(list(Path("/proc/self/fd").iterdir())) == before
