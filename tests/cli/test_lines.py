"""JSON lines on a disk that is full, to a reader that has gone, of names that are no UTF-8."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
import time
from pathlib import Path

import av
import pytest

from rdn_engine.cli.exits import OTHER_ERROR, READER_GONE
from rdn_engine.cli.lines import Lines
from tests.cli.commands import PATIENCE, ROOT, command, finish, lines, run, start, write_video

SMALL_PIPE = 4096
"""Bytes, the least that Linux gives"""

LIMITED = """
import resource, sys
from pathlib import Path
from rdn_engine.cli.lines import Lines
with Lines(Path(sys.argv[1])) as lines:
    lines.write({"n": 0})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        for n in range(1, 1000):
            lines.write({"n": n, "text": "x" * 60})
    except OSError as error:
        print(n, error.filename, error.strerror)
"""


def test_last_line_is_whole_where_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, path], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    n, name, why = found.stdout.rstrip("\n").split(" ", 2)
    assert (name, why) == (str(path), "File too large")
    assert [line["n"] for line in lines(path)] == list(range(int(n)))
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.usefixtures("fake")
def test_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    out.symlink_to("/dev/full")
    result = run("predict", write_video(tmp_path / "a.mp4"), "--engines", tmp_path, "--output", out)
    assert result.exit_code == OTHER_ERROR
    assert result.stderr == f"rdn-engine: {out}: No space left on device\n"


def test_name_that_is_not_utf8_is_escaped_and_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff caf\xe9 \xc3\xa9")
    with Lines(tmp_path / "o.jsonl") as out:
        out.write({"source_id": name})
    data = (tmp_path / "o.jsonl").read_bytes()
    assert data.decode("utf-8") == '{"source_id": "\\udcff caf\\udce9 é"}\n'
    assert os.fsencode(json.loads(data)["source_id"]) == b"\xff caf\xe9 \xc3\xa9"


def test_names_that_are_not_utf8_go_all_the_way(tmp_path: Path) -> None:
    video, out, drawn = (tmp_path / os.fsdecode(b"\xff\xe9" + end) for end in (b".mp4", b".jsonl", b"-drawn.mp4"))
    write_video(video)
    code, stdout, stderr = finish(
        start("predict", video, "--engines", ".", "--output", out, "--save-video", drawn, "--json")
    )
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["source"] == str(video) == lines(out)[0]["source_id"]
    assert drawn.stat().st_size > 0
    code, stdout, stderr = finish(start("predict", video, "--engines", "."))
    assert (code, stderr) == (0, "")
    assert "udcff" in stdout
    code, _, stderr = finish(start("predict", tmp_path / os.fsdecode(b"\xfe.mp4"), "--engines", "."))
    assert (code, stderr) == (3, f"rdn-engine: {tmp_path}/\\udcfe.mp4 does not exist; wanted a video file, an image "
                                 "folder, a glob or an address\n")  # fmt: skip


def test_lines_on_stdout_are_those_of_a_file(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl"
    assert finish(start("predict", video, "--engines", ".", "--output", out))[0] == 0
    code, stdout, stderr = finish(start("predict", video, "--engines", ".", "--output", "-"))
    assert code == 0
    assert stdout == out.read_text(encoding="utf-8")
    assert "steady frames" in stderr  # the summary gives way
    assert finish(start("predict", video, "--engines", ".", "--output", "-", "--quiet"))[2] == ""
    assert not Path("-").exists()


@pytest.mark.parametrize("extra", [("--output", "-"), ("--json",), ()])
def test_reader_that_has_gone_ends_it_without_a_word(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """As `| head` does: the code is a shell's for SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ("predict", write_video(tmp_path / "a.mp4"), "--engines", ".", *extra)
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr.decode()) == (READER_GONE, "")


def test_reader_that_goes_leaves_a_whole_video(tmp_path: Path) -> None:
    video, drawn, (reader, writer) = write_video(tmp_path / "a.mp4", 100), tmp_path / "o.mp4", os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    arguments = ("predict", video, "--engines", ".", "--output", "-", "--save-video", drawn)
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with open(reader, "rb") as file:
        first = json.loads(file.readline())
    _, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stderr.decode(), first["frame_index"]) == (READER_GONE, "", 0)
    with av.open(str(drawn)) as container:
        assert 1 <= len(list(container.decode(video=0))) < 100


def test_pipe_that_somebody_made_non_blocking_gets_all(tmp_path: Path) -> None:
    video, (reader, writer) = write_video(tmp_path / "a.mp4", 100), os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
    process = subprocess.Popen(
        command("predict", video, "--engines", ".", "--output", "-", "--quiet"), cwd=ROOT, stdout=writer
    )
    os.close(writer)
    for _ in range(PATIENCE * 20):  # until it is full, but for less than a line
        waiting = int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)
        if waiting > SMALL_PIPE - 500:
            break
        time.sleep(0.05)
    with open(reader, "rb") as file:
        data = file.read()
    assert process.wait(timeout=PATIENCE) == 0
    assert len(data) > 2 * SMALL_PIPE
    assert [json.loads(line)["frame_index"] for line in data.splitlines()] == list(range(100))
