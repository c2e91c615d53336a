"""A pass through a source that ends badly, or into files that cannot be written."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rdn_engine.cli import predict
from rdn_engine.cli.exits import BAD_INPUT, OTHER_ERROR
from rdn_engine.cli.run import Run
from rdn_engine.cli.signals import Interrupts
from rdn_engine.errors import VideoError, VideoWriteError
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.source import open_source
from rdn_engine.media.writer import VideoWriter
from tests.cli.commands import lines, run, write_video
from tests.fakes import fake_detector
from tests.media.clips import FPS, encode, picture


@pytest.mark.usefixtures("fake")
def test_source_that_breaks_off_keeps_the_results_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    _break_off(monkeypatch, VideoError("the camera is gone"))
    result = run("predict", video, "--engines", tmp_path, "--output", out)
    assert result.exit_code == BAD_INPUT
    assert "the camera is gone" in result.stderr
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("fake")
def test_summary_has_the_error_that_ended_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "a.mp4")
    whole = run("predict", video, "--engines", tmp_path, "--json")
    assert (whole.exit_code, json.loads(whole.stdout)["error"]) == (0, None)
    _break_off(monkeypatch, VideoError("rtsp://cam/1: it was silent for 3 s"))
    result = run("predict", video, "--engines", tmp_path, "--json")
    assert (result.exit_code, json.loads(result.stdout)["frames"]) == (BAD_INPUT, 5)
    assert result.stderr == f"rdn-engine: {json.loads(result.stdout)['error']}\n"
    assert json.loads(result.stdout)["error"] == "rtsp://cam/1: it was silent for 3 s"
    table = run("predict", video, "--engines", tmp_path).stdout
    assert re.search(r"error\s+rtsp://cam/1: it was silent for 3 s", table)


def images(folder: Path, *sides: int) -> Path:
    folder.mkdir()
    for t, side in enumerate(sides):
        Image.fromarray(np.full((side, side, 3), 20 * t, np.uint8)).save(folder / f"{t}.png")
    return folder


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("extra", [(), ("--quiet",)])
def test_first_frame_that_is_refused_is_a_warning(tmp_path: Path, extra: tuple[str, ...]) -> None:
    folder = images(tmp_path / "images", 20, 4, 20, 4)
    result = run("predict", folder, "--engines", tmp_path, *extra)
    assert result.exit_code == 0
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"rdn-engine: warning: {folder}: {folder / '1.png'} was refused, as others like it will")
    assert "with sides of at least" in warning
    summary = json.loads(run("predict", folder, "--engines", tmp_path, "--json").stdout)
    assert warning == f"rdn-engine: warning: {folder}: {summary['warnings'][0]}"
    assert (len(summary["warnings"]), summary["refused"], summary["error"]) == (1, 2, None)


@pytest.mark.usefixtures("fake")
def test_frame_of_a_video_that_is_refused_is_named_by_its_number(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    with VideoWriter(video, 25.0) as writer:
        writer.write(np.zeros((4, 6, 3), np.uint8))
    result = run("predict", video, "--engines", tmp_path, "--json")
    assert f"warning: {video}: frame 0 was refused" in result.stderr


@pytest.mark.usefixtures("fake")
def test_source_of_frames_that_are_all_refused_is_bad_input(tmp_path: Path) -> None:
    folder = images(tmp_path / "images", 4, 4)
    result = run("predict", folder, "--engines", tmp_path, "--json")
    assert result.exit_code == BAD_INPUT
    error = json.loads(result.stdout)["error"]
    assert error.startswith(f"{folder}: every frame was refused (2); the first: ")
    assert "with sides of at least" in error
    assert result.stderr.splitlines()[-1] == f"rdn-engine: {error}"


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


@pytest.mark.usefixtures("fake")
def test_lines_go_on_where_the_video_cannot_be_written(tmp_path: Path) -> None:
    video, out, drawn = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl", tmp_path / "o.mp4"
    drawn.symlink_to("/dev/full")
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", drawn, "--json")
    assert result.exit_code == OTHER_ERROR
    why = f"rdn-engine: {drawn} cannot be written: No space left on device"
    assert result.stderr.splitlines() == [f"{why}; the lines go on", why]
    assert [d["frame_index"] for d in lines(out)] == list(range(9))
    assert json.loads(result.stdout)["frames"] == 9


@pytest.mark.usefixtures("fake")
def test_without_lines_a_video_that_cannot_be_written_ends_it(tmp_path: Path) -> None:
    drawn = tmp_path / "o.mp4"
    drawn.symlink_to("/dev/full")
    result = run("predict", write_video(tmp_path / "a.mp4"), "--engines", tmp_path, "--save-video", drawn)
    assert result.exit_code == OTHER_ERROR
    assert result.stderr == f"rdn-engine: {drawn} cannot be written: No space left on device\n"


@pytest.mark.usefixtures("fake")
def test_video_that_fails_only_when_it_is_finished_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = VideoWriter.close

    def fail(writer: VideoWriter) -> None:
        finish(writer)
        raise VideoWriteError("the index does not fit")

    monkeypatch.setattr(VideoWriter, "close", fail)
    video, out = tmp_path / "a.ts", tmp_path / "o.jsonl"
    encode(video)
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", tmp_path / "o.mp4")
    assert (result.exit_code, result.stderr) == (OTHER_ERROR, "rdn-engine: the index does not fit\n")
    assert len(lines(out)) == 20


@pytest.mark.usefixtures("fake")
def test_refused_frame_does_not_hide_a_video_that_failed(tmp_path: Path) -> None:
    folder, drawn = images(tmp_path / "images", *[20] * 8, 4), tmp_path / "o.mp4"
    drawn.symlink_to("/dev/full")
    arguments = ("--engines", tmp_path, "--output", tmp_path / "o.jsonl", "--save-video", drawn, "--json")
    result = run("predict", folder, *arguments)
    assert (result.exit_code, json.loads(result.stdout)["refused"]) == (OTHER_ERROR, 1)


@pytest.mark.usefixtures("fake")
def test_clock_that_restarts_goes_on_in_the_annotated_video(tmp_path: Path) -> None:
    """Recordings of a transport stream, one behind the other: their clock begins anew in each."""
    part, video = encode(tmp_path / "part.ts", bf="0"), tmp_path / "a.ts"
    video.write_bytes(3 * part.read_bytes())
    out, drawn = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", drawn)
    assert result.exit_code == 0, result.output
    found = lines(out)
    with open_source(drawn) as frames:
        times = [f.pts for f in frames]
    assert times == pytest.approx([t / FPS for t in range(len(found))], abs=1e-3)
    assert len(found) >= 3 * 20 - 2
    assert found[-1]["epoch"] == 2
    assert max(d["pts"] for d in found) < 20 / FPS + 2  # lines keep the source's own clock
    assert re.search(r"epochs\s+3: ", result.stdout)
    assert "epochs" not in run("predict", part, "--engines", tmp_path).stdout


@pytest.mark.usefixtures("fake")
def test_shape_of_pixels_goes_into_the_annotated_video(tmp_path: Path) -> None:
    video, drawn = tmp_path / "a.mp4", tmp_path / "o.mp4"
    with VideoWriter(video, 25.0) as writer:
        for t in range(3):
            writer.write(picture(t), pixel_aspect=Fraction(64, 45))
    assert run("predict", video, "--engines", tmp_path, "--save-video", drawn).exit_code == 0
    with av.open(str(drawn)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
