"""`rdn-engine predict`: what it writes, says and refuses."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from rdn_engine.cli import predict
from rdn_engine.cli.exits import BAD_INPUT, NOT_WHOLE, OTHER_ERROR, USAGE
from rdn_engine.cli.tables import summary_table, tables_text
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.source import open_source
from rdn_engine.media.writer import VideoWriter
from rdn_engine.results import Detections
from tests.cli.commands import lines, run, write_video
from tests.media.clips import encode
from training.data.synthetic import write_clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("fake")
def test_predict_writes_one_line_a_frame_and_an_annotated_video(tmp_path: Path) -> None:
    video, out, drawn = write_video(tmp_path / "a.mp4"), tmp_path / "out.jsonl", tmp_path / "out.mp4"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", drawn)
    assert result.exit_code == 0, result.output
    found = [Detections.from_dict(line) for line in lines(out)]
    assert [d.frame_index for d in found] == list(range(9))
    assert [d.pts for d in found] == pytest.approx([t / 10 for t in range(9)], abs=1e-3)
    assert all(d.class_names[c] == "cat" for d in found for c in d.class_id)
    assert "steady frames" in result.stdout
    with open_source(video) as before, open_source(drawn) as after:
        pairs = list(zip(before, after, strict=True))
    assert [b.pts for b, _ in pairs] == pytest.approx([a.pts for _, a in pairs], abs=1e-3)
    assert all(np.abs(b.image.astype(int) - a.image).max() > 100 for b, a in pairs)


@pytest.mark.usefixtures("fake")
def test_json_summary_is_all_there_is_on_stdout(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    result = run("predict", video, "--engines", tmp_path, "--json", "--window", 1, "--threshold", 0.5)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["skipped"], summary["refused"], summary["epochs"]) == (9, 0, 0, 1)
    assert summary["per_class"] == {"cat": summary["detections"]}
    assert summary["steady_frames"] == 9 - 3
    assert "relation" in summary["steady_ms_per_frame"]
    assert summary["interrupted"] is False


def summary_of(*arguments: object) -> tuple[dict[str, Any], str]:
    """As `--json` has it, and as people read it, line by line with single spaces."""
    told = [run("predict", *arguments, *more) for more in (["--json"], [])]
    assert [result.exit_code for result in told] == [0, 0], told[1].output
    text = "\n".join(" ".join(line.split()) for line in told[1].stdout.splitlines())
    return json.loads(told[0].stdout), text


@pytest.mark.usefixtures("fake")
def test_the_summary_has_the_stages_that_were_asked_for(tmp_path: Path) -> None:
    given = (write_video(tmp_path / "a.mp4", 24), "--engines", tmp_path, "--window", 1)
    summary, text = summary_of(*given)
    assert "relation" in summary["steady_ms_per_frame"]
    assert f"timed mean of {24 - 3} steady frames" in text.splitlines()
    assert {"linking", "between", "still"}.isdisjoint(summary["steady_ms_per_frame"])
    assert not any(line.startswith(("linking", "between", "still", "encoded")) for line in text.splitlines())
    assert "an encoded one" not in text
    for more, wanted in (
        (["--link"], {"linking"}),
        (["--interval", 2], {"between"}),
        (["--still", 1], {"still", "between"}),
    ):
        summary, _ = summary_of(*given, *more)
        assert {"linking", "between", "still"} & set(summary["steady_ms_per_frame"]) == wanted, more


def test_the_summary_counts_identities(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, index=7, num_frames=12)
    given = [clip, "--engines", ROOT / "models" / "rdn_tiny" / "engines", "--threshold", 0.3]
    summary, text = summary_of(*given)
    assert summary["identities"] is None
    assert not any(line.startswith("identities") for line in text.splitlines())
    summary, text = summary_of(*given, "--link", "--output", tmp_path / "out.jsonl")
    named = {box["tracker_id"] for line in lines(tmp_path / "out.jsonl") for box in line["detections"]}
    assert summary["identities"] == len(named) > 1
    assert f"identities {len(named)}" in text.splitlines()


@pytest.mark.usefixtures("fake")
def test_the_summary_says_what_an_encoded_frame_took(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 24)
    summary, text = summary_of(video, "--engines", tmp_path, "--window", 1, "--interval", 3)
    assert (summary["frames"], summary["encoded"]) == (24, 9)
    assert 2 * summary["steady_encoded"] < summary["steady_frames"] < 4 * summary["steady_encoded"]
    assert "encoded 9, the results of the others come from theirs" in text.splitlines()
    took = {"backbone": 10.0, "between": 0.5, "total": 10.5}
    summary |= {"steady_frames": 30, "steady_encoded": 12, "steady_ms_per_frame": took}
    shown = tables_text(summary_table(summary))
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "timed mean of 30 steady frames, 12 of them encoded" in rows
    assert "backbone, ms 10.00 a frame, 25.00 an encoded one" in rows
    assert "between, ms 0.50 a frame" in rows
    assert "total, ms 10.50 a frame" in rows


@pytest.mark.usefixtures("fake")
def test_the_summary_says_that_no_frame_was_still(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    with VideoWriter(video, fps=10.0) as writer:
        for t in range(9):
            writer.write(np.full((48, 64, 3), 250 * (t % 2), np.uint8))
    _, text = summary_of(video, "--engines", tmp_path, "--still", 1)
    assert "encoded 9, all" in text.splitlines()


@pytest.mark.usefixtures("fake")
def test_quiet_says_nothing(tmp_path: Path) -> None:
    result = run("predict", write_video(tmp_path / "a.mp4"), "--engines", tmp_path, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.usefixtures("fake")
def test_damaged_and_refused_images_leave_gaps(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for t in range(6):
        side = 4 if t == 2 else 20 + t // 4
        Image.fromarray(np.full((side, side, 3), 40 * t, np.uint8)).save(folder / f"{t}.png")
    (folder / "4.png").write_bytes(b"not an image")
    out, drawn = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    result = run("predict", folder, "--engines", tmp_path, "--output", out, "--save-video", drawn, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["skipped"], summary["refused"], summary["epochs"]) == (4, 1, 1, 2)
    assert [d["frame_index"] for d in lines(out)] == [0, 1, 3, 5]
    assert [d["epoch"] for d in lines(out)] == [0, 0, 0, 1]
    with open_source(drawn) as video:
        assert len(list(video)) == 4


@pytest.mark.usefixtures("fake")
def test_bad_input_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    result = run("predict", tmp_path / "no.mp4", "--engines", tmp_path, "--quiet")
    assert result.exit_code == BAD_INPUT
    assert result.stdout == ""
    assert result.stderr.startswith("rdn-engine: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--window", -1),
        ("--window", 2, "--look-ahead", 3),
        ("--ratio", 0),
        ("--support", 9),
        ("--threshold", 1.5),
        ("--draw-threshold", -0.1),
        ("--draw-threshold", 1.5),
        ("--draw-threshold", "nan"),
        ("--sampling", "some"),
        ("--bogus",),
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    result = run("predict", write_video(tmp_path / "a.mp4", 2), "--engines", tmp_path, *arguments)
    assert result.exit_code == USAGE
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.usefixtures("fake")
def test_output_must_not_be_the_source_and_must_have_a_place(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    before = video.read_bytes()
    assert run("predict", video, "--engines", tmp_path, "--save-video", video).exit_code == USAGE
    assert video.read_bytes() == before
    for option, out in (("--output", tmp_path / "no" / "o.jsonl"), ("--save-video", tmp_path / "no" / "o.mp4")):
        result = run("predict", video, "--engines", tmp_path, option, out)
        assert result.exit_code == OTHER_ERROR
        assert result.stderr == f"rdn-engine: {out} cannot be written: its folder does not exist\n"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("option", ["--output", "--save-video"])
def test_output_must_not_be_a_file_of_the_source(tmp_path: Path, option: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / name)
    (tmp_path / "link.png").symlink_to(folder / "2.png")
    before = (folder / "2.png").read_bytes()
    for source in (folder, folder / "*.png"):
        for out in (folder / "2.png", folder / ".." / "images" / "2.png", tmp_path / "link.png"):
            result = run("predict", source, "--engines", tmp_path, option, out)
            assert result.exit_code == USAGE
            assert "is a file of the source" in result.stderr
            assert (folder / "2.png").read_bytes() == before


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("option", ["--output", "--save-video"])
def test_no_link_to_the_source_is_written_to(tmp_path: Path, option: str) -> None:
    video, hard, soft = write_video(tmp_path / "a.mp4", 2), tmp_path / "hard.mp4", tmp_path / "soft.mp4"
    hard.hardlink_to(video)
    soft.symlink_to(hard)
    before = video.read_bytes()
    for source in (video, f"file:{video}", f"cache://{video}", hard, soft):
        for out in (video, hard, soft):
            result = run("predict", source, "--engines", tmp_path, option, out)
            assert (result.exit_code, video.read_bytes()) == (USAGE, before)
            assert "is a file of the source" in result.stderr


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("option", ["--output", "--save-video"])
def test_no_file_of_a_playlist_is_written_to(tmp_path: Path, option: str) -> None:
    folder = tmp_path / "list"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, 2)
    concat, hls = folder / "list.ffconcat", folder / "fragments.m3u8"
    concat.write_text("ffconcat version 1.0\nfile a.mp4\nfile 'b.mp4'\n")
    fragmented = {"hls_segment_type": "fmp4", "hls_fmp4_init_filename": "init.mp4", "hls_playlist_type": "vod",
                  "hls_segment_filename": str(folder / "%d.m4s"), "hls_time": "0.2"}  # fmt: skip
    encode(hls, g="5", container_options=fragmented)
    (tmp_path / "link.mp4").hardlink_to(folder / "init.mp4")
    outs = {concat: ("a.mp4", "b.mp4", "list.ffconcat"), hls: ("init.mp4", "1.m4s", "../link.mp4", "fragments.m3u8")}
    for source, names in outs.items():
        for name in names:
            before = (folder / name).read_bytes()
            result = run("predict", source, "--engines", tmp_path, option, folder / name)
            assert (result.exit_code, (folder / name).read_bytes()) == (USAGE, before)
            assert "is a file of the source" in result.stderr
        # Another file beside them is written, though it is there.
        (folder / "o.mp4").write_bytes(b"")
        assert run("predict", source, "--engines", tmp_path, option, folder / "o.mp4").exit_code == 0
        assert (folder / "o.mp4").stat().st_size


@pytest.mark.usefixtures("fake")
def test_lines_and_video_must_be_two_files(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "a.mp4", 2), tmp_path / "o.mp4"
    again = tmp_path / ".." / tmp_path.name / "o.mp4"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", again)
    assert result.exit_code == USAGE
    assert "two different files" in result.stderr
    assert not out.exists()
    write_video(out, 1)
    again = tmp_path / "hard.mp4"
    again.hardlink_to(out)
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", again)
    assert (result.exit_code, "two different files" in result.stderr) == (USAGE, True)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ["o.gif", "o.webm", "o.txt", "o.avi", "-"])
def test_container_that_cannot_hold_the_video_is_one_line(tmp_path: Path, name: str) -> None:
    video, out = write_video(tmp_path / "a.mp4", 2), tmp_path / "o.jsonl"
    result = run("predict", video, "--engines", tmp_path, "--output", out, "--save-video", tmp_path / name)
    assert result.exit_code == OTHER_ERROR
    assert ".mp4, .mkv, .mov" in result.stderr
    assert result.stderr.count("\n") == 1


def cut_short(path: Path) -> Path:
    """An MP4 whose index stands at its beginning and promises more than follows."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(40):
            image = np.random.default_rng(t).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("extra", [(), ("--quiet",)])
def test_incomplete_input_is_a_warning(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """Under --quiet too: a warning is about the results."""
    video, out = cut_short(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    result = run("predict", video, "--engines", tmp_path, "--output", out, *extra)
    assert result.exit_code == 0
    warnings = result.stderr.splitlines()
    assert all(warning.startswith(f"rdn-engine: warning: {video}: ") for warning in warnings)
    assert ["of 40 frames" in warning for warning in warnings].count(True) == 1
    assert 0 < len(lines(out)) < 40


@pytest.mark.usefixtures("fake")
def test_summary_holds_the_warnings_and_what_is_missing(tmp_path: Path) -> None:
    video = cut_short(tmp_path / "a.mp4")
    summary = json.loads(run("predict", video, "--engines", tmp_path, "--json").stdout)
    assert summary["incomplete"] in summary["warnings"]
    assert "incomplete" in run("predict", video, "--engines", tmp_path).stdout
    whole = json.loads(run("predict", write_video(tmp_path / "b.mp4"), "--engines", tmp_path, "--json").stdout)
    assert (whole["incomplete"], whole["warnings"]) == (None, [])


@pytest.mark.usefixtures("fake")
def test_strict_has_a_code_of_its_own(tmp_path: Path) -> None:
    whole, folder = write_video(tmp_path / "a.mp4"), tmp_path / "images"
    assert run("predict", whole, "--engines", tmp_path, "--strict").exit_code == 0
    result = run("predict", cut_short(tmp_path / "b.mp4"), "--engines", tmp_path, "--strict", "--json")
    assert result.exit_code == NOT_WHOLE
    assert json.loads(result.stdout)["frames"] > 0
    folder.mkdir()
    for name, side in (("0.png", 20), ("1.png", 20)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(folder / name)
    assert run("predict", folder, "--engines", tmp_path, "--strict").exit_code == 0
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "2.png")
    assert run("predict", folder, "--engines", tmp_path, "--strict").exit_code == NOT_WHOLE
    (folder / "2.png").write_bytes(b"no image")
    assert run("predict", folder, "--engines", tmp_path, "--strict").exit_code == NOT_WHOLE
    assert run("predict", folder, "--engines", tmp_path).exit_code == 0


@pytest.mark.usefixtures("fake")
def test_strict_wants_no_doubtful_frame(tmp_path: Path) -> None:
    """A transport stream of which a few packets of 188 bytes never arrived."""
    with av.open(str(tmp_path / "a.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "20", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for t in range(40):
            image = np.random.default_rng(t).integers(0, 60, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "a.ts").read_bytes()
    half = len(data) // 376 * 188
    (tmp_path / "b.ts").write_bytes(data[:half] + data[half + 6 * 188 :])
    for name, code in (("a.ts", 0), ("b.ts", NOT_WHOLE)):
        result = run("predict", tmp_path / name, "--engines", tmp_path, "--strict", "--json")
        assert result.exit_code == code
        assert (json.loads(result.stdout)["doubtful"] > 0) == (code == NOT_WHOLE)


@pytest.mark.usefixtures("fake")
def test_warning_of_the_package_is_said_once_and_by_nobody_later(tmp_path: Path) -> None:
    run("predict", write_video(tmp_path / "a.mp4"), "--engines", tmp_path)
    assert logging.getLogger("rdn_engine").handlers == []


@pytest.mark.usefixtures("fake")
def test_options_of_the_source_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    read = predict.open_source

    def note(source: str, options: SourceOptions) -> VideoSource:
        taken.append(options)
        return read(source, options)

    monkeypatch.setattr(predict, "open_source", note)
    video = write_video(tmp_path / "a.mp4")
    assert run("predict", video, "--engines", tmp_path).exit_code == 0
    given = ("--timeout", 2.5, "--video-stream", 0, "--deinterlace", "--square-pixels")
    assert run("predict", video, "--engines", tmp_path, *given).exit_code == 0
    assert taken == [SourceOptions(), SourceOptions(timeout=2.5, video_stream=0, deinterlace=True, square_pixels=True)]


def test_source_that_stays_silent_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        result = run("predict", address, "--engines", ".", "--timeout", 0.2)
    assert result.exit_code == BAD_INPUT
    assert "silent for 0.2 s" in result.stderr
    assert run("predict", address, "--engines", ".", "--timeout", 0).exit_code == USAGE


@pytest.mark.usefixtures("fake")
def test_file_given_as_an_address_is_not_written_over(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    before = video.read_bytes()
    for scheme in ("file:", "file://"):
        result = run("predict", f"{scheme}{video}", "--engines", tmp_path, "--save-video", video)
        assert result.exit_code == USAGE
        assert video.read_bytes() == before
        assert run("predict", f"{scheme}{video}", "--engines", tmp_path).exit_code == 0
