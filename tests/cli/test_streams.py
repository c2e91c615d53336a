"""Standard streams that are closed, broken or full."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import av
import pytest

from rdn_engine.cli.exits import BAD_INPUT, OTHER_ERROR, USAGE
from tests.cli.commands import finish, lines, shell, start, write_video
from tests.media.clips import encode


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", ">&- 2>/dev/full"])
def test_files_are_whole_whatever_is_closed(tmp_path: Path, closed: str) -> None:
    """A file that is opened takes the lowest free number: with stderr closed, a library's words went into it."""
    video, out, drawn = write_video(tmp_path / "a.mp4"), tmp_path / "o.jsonl", tmp_path / "o.mp4"
    arguments = ("predict", video, "--engines", ".", "--output", out, "--save-video", drawn)
    code, _, stderr = shell(f'exec "$@" {closed}', *arguments)
    assert (code, stderr) == (0, "")
    assert [d["frame_index"] for d in lines(out)] == list(range(9))
    with av.open(str(drawn)) as container:
        assert len(list(container.decode(video=0))) == 9


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_exit_code_does_not_depend_on_stderr(tmp_path: Path, closed: str) -> None:
    code, _, stderr = shell(f'exec "$@" {closed}', "predict", tmp_path / "no.mp4", "--engines", ".")
    assert (code, stderr) == (BAD_INPUT, "")


@pytest.mark.parametrize("extra", [("--json",), ("--output", "-")])
def test_closed_stdout_is_refused_where_it_is_wanted(tmp_path: Path, extra: tuple[str, ...]) -> None:
    arguments = ("predict", write_video(tmp_path / "a.mp4"), "--engines", ".", *extra)
    code, _, stderr = shell('exec "$@" >&-', *arguments)
    assert code == USAGE
    assert stderr == "rdn-engine: stdout is closed; wanted it open, for the lines or the summary\n"


@pytest.mark.parametrize("extra", [("--json",), ("--output", "-"), ()])
def test_full_stdout_is_one_line(tmp_path: Path, extra: tuple[str, ...]) -> None:
    arguments = ("predict", write_video(tmp_path / "a.mp4"), "--engines", ".", *extra)
    code, _, stderr = shell('exec "$@" >/dev/full', *arguments)
    assert (code, stderr) == (OTHER_ERROR, "rdn-engine: stdout: No space left on device\n")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_and_version_on_a_full_stdout(option: str) -> None:
    code, _, stderr = shell('exec "$@" >/dev/full', option)
    assert (code, stderr) == (OTHER_ERROR, "rdn-engine: stdout: No space left on device\n")


def test_summary_and_lines_do_not_share_stdout(tmp_path: Path) -> None:
    code, _, stderr = finish(start("predict", tmp_path, "--engines", ".", "--output", "-", "--json"))
    assert (code, stderr.count("\n")) == (USAGE, 1)


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "index at the end", "descriptor", "/dev/stdin"])
def test_stdin_is_a_source(tmp_path: Path, kind: str) -> None:
    video = encode(tmp_path / ("a.mp4" if kind == "index at the end" else "a.ts"))
    data, name = video.read_bytes(), "-"
    if kind in ("file", "index at the end"):
        with video.open("rb") as file:
            found = finish(start("predict", name, "--engines", ".", "--output", "-", "--quiet", stdin=file))
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = start("predict", name, "--engines", ".", "--output", "-", "--quiet", stdin=theirs)
            theirs.close()
            ours.sendall(data)
            ours.close()
            found = finish(process)
    elif kind == "descriptor":  # as <(...) of a shell
        found = shell(f'exec 3<"{video}"; cat <&3 | {{ exec 3<&0; exec "$@" 3<&3 <&-; }}',
                      "predict", "/dev/fd/3", "--engines", ".", "--output", "-", "--quiet")  # fmt: skip
    else:
        name = kind if kind == "/dev/stdin" else "-"
        found = finish(
            start("predict", name, "--engines", ".", "--output", "-", "--quiet", stdin=subprocess.PIPE), data
        )
    code, stdout, stderr = found
    assert (code, stderr) == (0, "")
    assert [json.loads(line)["frame_index"] for line in stdout.splitlines()] == list(range(20))
    assert json.loads(stdout.splitlines()[0])["source_id"] == ("/dev/fd/3" if kind == "descriptor" else name)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('exec "$@" <&-', "stdin is closed"),
        ('exec "$@" </dev/null', "stdin is empty; wanted a video"),
        ('{ sleep 0.2; } | "$@"', "stdin is empty; wanted a video"),
        ('exec "$@" <EMPTY', "stdin is empty; wanted a video"),
    ],
)
def test_stdin_that_holds_nothing_is_bad_input(script: str, told: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = shell(script.replace("EMPTY", f"'{tmp_path}/empty'"), "predict", name, "--engines", ".")
    assert found == (BAD_INPUT, "", f"rdn-engine: {name} cannot be read: {told}\n")


@pytest.mark.parametrize("filled", [True, False])
def test_socket_on_stdin_is_empty_once_the_other_side_has_closed_it(filled: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start("predict", "-", "--engines", ".", stdin=theirs)
        ours.sendall(b"no video" * filled)
        ours.close()
        code, _, stderr = finish(process)
    assert (code, "stdin is empty" in stderr) == (BAD_INPUT, not filled)


def test_source_from_stdin_is_not_written_over(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    before = video.read_bytes()
    with video.open("rb") as file:
        code, _, stderr = finish(start("predict", "-", "--engines", ".", "--save-video", video, stdin=file))
    assert code == USAGE
    assert "is a file of the source -" in stderr
    assert video.read_bytes() == before
