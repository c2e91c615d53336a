"""The annotated video, written and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rdn_engine.errors import VideoError
from rdn_engine.media.writer import CONTAINERS, VideoWriter
from tests.media.clips import HEIGHT, LOSSY, WIDTH, picture, read


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_writer_round_trip(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mp4"
    times = [0.0, 0.04, 0.12, 0.5]
    with VideoWriter(path, fps=25.0) as writer:
        for t, seconds in enumerate(times):
            writer.write(picture(t, *size), seconds)
    frames, skipped = read(path)
    assert skipped == 0
    assert [f.pts for f in frames] == pytest.approx(times, abs=1e-4)
    for t, frame in enumerate(frames):
        assert frame.image.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert np.abs(frame.image[: size[0], : size[1]].astype(int) - picture(t, *size)).mean() < LOSSY


def test_writer_without_times_and_with_repeated_times(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=10.0) as writer:
        for t in range(3):
            writer.write(picture(t))
    assert [f.pts for f in read(tmp_path / "a.mp4")[0]] == pytest.approx([0, 0.1, 0.2], abs=1e-4)
    with VideoWriter(tmp_path / "b.mp4") as writer:
        for t in range(3):
            writer.write(picture(t), 1.0 - t)
    assert len(read(tmp_path / "b.mp4")[0]) == 3


def test_writer_fits_other_sizes_into_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(picture(0))
        writer.write(np.full((64, 32, 3), 200, np.uint8))
    second = read(tmp_path / "a.mp4")[0][1].image
    assert second.shape == (HEIGHT, WIDTH, 3)
    assert second[:, 36:60].min() > 180
    assert second[:, :28].max() < 40


def test_writer_refuses_an_impossible_place(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be written"):
        VideoWriter(tmp_path / "no" / "a.mp4")
    with pytest.raises(VideoError, match="cannot be written"):
        VideoWriter(tmp_path / "a.nonsense")


@pytest.mark.parametrize(
    ("name", "why"), [("a.gif", "'gif' format"), ("a.webm", "'webm' format"), ("a.txt", "format"), ("a.ogg", "")]
)
def test_writer_names_the_containers_that_work(tmp_path: Path, name: str, why: str) -> None:
    wanted = rf"cannot be written: .*{why}.*\.mp4, \.mkv, \.avi, \.mov"
    with pytest.raises(VideoError, match=wanted) as caught, VideoWriter(tmp_path / name) as writer:
        writer.write(picture(0))
    assert "ValueError" not in str(caught.value)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_named_containers_do_work(tmp_path: Path, suffix: str) -> None:
    with VideoWriter(tmp_path / f"a{suffix}") as writer:
        writer.write(picture(0))
    assert len(read(tmp_path / f"a{suffix}")[0]) == 1


def test_writer_without_a_frame_leaves_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "a.mp4").close()
    assert list(tmp_path.iterdir()) == []
