"""`rdn-engine predict` of many videos, in one process; on Ray it is tried in tests/serve/ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rdn_engine.cli.discreet import with_default_address
from rdn_engine.cli.exits import BAD_INPUT, BY_SIGNAL, USAGE
from tests.cli.commands import PATIENCE, ROOT, lines, run
from training.data.synthetic import write_clip

ENGINES = ROOT / "models" / "rdn_tiny" / "engines"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(3):
        write_clip(folder / f"{i}.mp4", index=i, num_frames=5 + i)
    return folder


def test_each_video_has_a_file_that_says_what_one_video_alone_gives(videos: Path, tmp_path: Path) -> None:
    given = ("--engines", ENGINES, "--threads", 1, "--window", 2, "--link")
    done = run("predict", videos / "*.mp4", "--output", tmp_path / "out", "--json", *given)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["errors"], summary["frames"]) == (3, 0, 5 + 6 + 7)
    for i in range(3):
        alone = tmp_path / f"{i}.jsonl"
        assert run("predict", videos / f"{i}.mp4", "--output", alone, "--quiet", *given).exit_code == 0
        assert (tmp_path / "out" / f"{i}.mp4.jsonl").read_bytes() == alone.read_bytes()
    again = run("predict", videos / "*.mp4", "--output", tmp_path / "out", *given)
    assert again.exit_code == 0
    assert "done before 3" in " ".join(again.stdout.split())
    shown = json.loads(run("predict", videos / "*.mp4", "--output", tmp_path / "out", "--json", *given).stdout)
    assert (shown["done"], shown["done before"], shown["frames"]) == (0, 3, 18)


def test_the_summary_counts_encoded_frames_and_detections_by_class(videos: Path, tmp_path: Path) -> None:
    given = ("--engines", ENGINES, "--threads", 1, "--window", 2, "--interval", 2, "--threshold", 0.3)
    done = run("predict", videos / "*.mp4", "--output", tmp_path / "out", "--json", *given)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    found = [line for i in range(3) for line in lines(tmp_path / "out" / f"{i}.mp4.jsonl")]
    names = Counter(box["class_name"] for line in found for box in line["detections"])
    assert summary["encoded"] == sum(line["basis"] == "encoded" for line in found) < summary["frames"] == len(found)
    assert summary["per_class"] == dict(names)
    assert summary["detections"] == names.total() > 0
    assert [one["encoded"] for one in summary["videos"]] == [3, 4, 4]  # the last frame is always encoded
    shown = " ".join(run("predict", videos / "*.mp4", "--output", tmp_path / "out", *given).stdout.split())
    assert "the results of the others come from theirs" in shown
    assert all(f"detections: {name}" in shown for name in names)


def test_a_corrupt_video_is_one_line_and_an_exit_code_behind_all_others(videos: Path, tmp_path: Path) -> None:
    (videos / "1.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    done = run("predict", videos / "*.mp4", "--engines", ENGINES, "--output", out, "--quiet", "--window", 2)
    assert done.exit_code == BAD_INPUT
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(videos / "1.mp4") in done.stderr
    assert [len(lines(out / f"{i}.mp4.jsonl")) for i in (0, 2)] == [5, 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--output is not given"),
        (("--output", "-"), "--output is -"),
        (("--output", "{file}"), "is a file"),
        (("--output", "{out}", "--save-video", "{out}.mp4"), "--save-video"),
        (("--output", "{out}", "--trace", "{out}.trace"), "--trace"),
        (("--output", "{out}", "--ray", "--save-video", "{out}.mp4"), "--save-video"),
        (("--output", "{out}", "--ray", "some words"), "--ray is 'some words'"),
        (("--output", "{out}", "--workers", "2"), "wanted --ray too"),
        (("--output", "{out}", "--segment-frames", "2"), "wanted --ray too"),
        (("--output", "{out}", "--window", "-1"), "window"),
    ],
)
def test_wrong_usage_is_exit_code_2(videos: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    (tmp_path / "file").write_text("")
    given = [one.format(out=tmp_path / "out", file=tmp_path / "file") for one in options]
    done = run("predict", videos / "*.mp4", "--engines", ENGINES, *given)
    assert done.exit_code == USAGE, done.output
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_options_of_many_videos_are_none_of_one(videos: Path, tmp_path: Path) -> None:
    for options in (("--workers", 2), ("--segment-frames", 9), ("--format", "parquet")):
        done = run("predict", videos / "0.mp4", "--engines", ENGINES, "--output", tmp_path / "o", *options)
        assert done.exit_code == USAGE
        assert "--ray" in done.stderr


def test_a_source_behind_ray_is_taken_for_its_address(videos: Path, tmp_path: Path) -> None:
    done = run("predict", "--engines", ENGINES, "--output", tmp_path / "o", "--ray", videos / "*.mp4")
    assert done.exit_code == USAGE
    assert "name the source before it" in " ".join(done.stderr.replace("│", " ").split())


def test_what_is_no_file_is_not_for_ray(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for source in (tmp_path / "no.mp4", "rtsp://user:secret@camera/1", tmp_path):
        done = run("predict", source, "--engines", ENGINES, "--output", tmp_path / "o", "--ray")
        assert done.exit_code == BAD_INPUT
        assert "is no file; wanted a video" in done.stderr
        assert "secret" not in done.output


def test_a_signal_leaves_whole_files_and_the_next_run_goes_on(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_clip(videos / "0.mp4", num_frames=5)
    write_clip(videos / "1.mp4", num_frames=900)
    command = [sys.executable, "-m", "rdn_engine", "predict", str(videos / "*.mp4"), "--engines", str(ENGINES),
               "--output", str(out), "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + PATIENCE
    while not ((out / "0.mp4.outcome.json").exists() and list(out.glob(".*.part"))):
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == BY_SIGNAL + signal.SIGTERM, said
    assert sorted(path.name for path in out.iterdir()) == ["0.mp4.jsonl", "0.mp4.outcome.json"]


def test_ray_without_an_address_is_this_machine() -> None:
    assert with_default_address(["predict", "a", "--ray"]) == ["predict", "a", "--ray", "local"]
    assert with_default_address(["predict", "--ray", "--json", "a"]) == ["predict", "--ray", "local", "--json", "a"]
    for typed in (["predict", "a", "--ray", "auto"], ["predict", "--ray=auto", "a"], ["run", "--ray"], []):
        assert with_default_address(typed) == typed
