"""A pass through a source that ends badly, or into files that cannot be written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rdn_engine.cli import predict
from rdn_engine.cli.exits import BAD_INPUT
from rdn_engine.cli.run import Run
from rdn_engine.cli.signals import Interrupts
from rdn_engine.errors import VideoError
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.source import open_source
from tests.cli.commands import lines, run, write_video
from tests.fakes import fake_detector


@pytest.mark.usefixtures("fake")
def test_source_that_breaks_off_keeps_the_results_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    _break_off(monkeypatch, VideoError("the camera is gone"))
    result = run("predict", video, "--engines", tmp_path, "--output", out)
    assert result.exit_code == BAD_INPUT
    assert "the camera is gone" in result.stderr
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 2, 3, 4]


def test_progress_says_that_its_memory_is_a_peak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector, _, _ = fake_detector()
    with open_source(write_video(tmp_path / "a.mp4", 2)) as video, detector.open_stream() as stream:
        Run(stream, video, 0.3, Interrupts()).process(None, None, show_progress=True)
    assert re.search(r"peak\s+\d+\s+MiB", capsys.readouterr().err)


def _break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Every video ends with `error` after its first five frames."""
    read = predict.open_source

    def broken(source: str, options: SourceOptions) -> object:
        video = read(source, options)
        whole = video._frames

        def frames() -> object:
            for frame in whole():
                if frame.index == 5:
                    raise error
                yield frame

        monkeypatch.setattr(video, "_frames", frames)
        return video

    monkeypatch.setattr(predict, "open_source", broken)
