"""`rdn-engine run` as a process: signals under load, logs, exit codes, what it answers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from PIL import Image

from rdn_engine.cli.exits import BAD_BUNDLE, BAD_INPUT, OTHER_ERROR, USAGE
from tests.cli.commands import PATIENCE, ROOT, command, finish, lines, run, start, write_video
from tests.media.servers import serving

ENGINES = str(ROOT / "models/rdn_tiny/engines")


@contextmanager
def camera(pause: float = 0.02) -> Iterator[str]:
    """A camera that sends pictures for ever (MJPEG over HTTP); yields its address, with a password in it."""
    import io

    pictures = []
    for level in range(0, 250, 10):
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (level, 40, 200 - level // 2)).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
        with suppress(OSError):
            while not over.wait(pause):
                for one in pictures[:1]:
                    pictures.append(pictures.pop(0))
                    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(one)}\r\n\r\n".encode()
                    connection.sendall(head + one + b"\r\n")

    with serving(answer) as server:
        yield f"http://admin:hush@127.0.0.1:{server.port}/video.mjpg"
        over.set()


def settings(tmp_path: Path, **data: Any) -> Path:
    path = tmp_path / "streams.yaml"
    path.write_text(yaml.safe_dump({"engines": "none", **data}))
    return path


def outputs(tmp_path: Path) -> dict[str, Any]:
    return {"lines": {"kind": "jsonl", "path": str(tmp_path / "{stream}.jsonl"), "policy": "wait"}}


def test_files_run_to_their_ends(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    streams = {
        name: {"source": str(video), "outputs": ["lines"], "real_time": False, "policy": "wait"} for name in "ab"
    }
    path = settings(tmp_path, outputs=outputs(tmp_path), streams=streams)
    code, out, err = finish(start("run", path))
    assert (code, out) == (0, ""), err
    assert len(lines(tmp_path / "a.jsonl")) == len(lines(tmp_path / "b.jsonl")) == 9
    assert re.search(r"^\S+Z INFO stream 'a': ended: ended; 9 frames in, 9 out, dropped: none$", err, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_under_load_loses_nothing_that_was_taken(tmp_path: Path, number: signal.Signals) -> None:
    with camera() as address:
        streams = {
            name: {"source": address, "outputs": ["lines"], "policy": "wait", "dials": {"look_ahead": 1}}
            for name in ("a", "b", "c")
        }
        process = start("run", settings(tmp_path, outputs=outputs(tmp_path), streams=streams), "--log", "json")
        assert process.stderr is not None
        wait_for(lambda: all(count(tmp_path / f"{name}.jsonl") > 5 for name in streams))
        process.send_signal(number)
        code, _, err = finish(process)
    assert code == 0, err
    assert "hush" not in err
    events = [json.loads(line) for line in err.splitlines()]
    ended = {e["stream"]: e for e in events if e.get("event") == "ended"}
    assert set(ended) == set(streams)
    for name, event in ended.items():
        counts = event["counts"]
        assert counts["frames_in"] == counts["frames_out"] + sum(counts["dropped"].values())
        assert [line["frame_index"] for line in lines(tmp_path / f"{name}.jsonl")] == list(range(counts["frames_out"]))
    assert (events[-1]["level"], events[-1]["message"]) == ("info", f"stopped by {number.name}")


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    """The disk is full, and what waits for it would be tried until the time is over."""
    with camera() as address:
        full = {"full": {"kind": "jsonl", "path": "/dev/full", "policy": "wait", "room": 2}}
        streams = {"a": {"source": address, "outputs": ["full"]}}
        path = settings(tmp_path, outputs=full, streams=streams, stop_seconds=10 * PATIENCE)
        process = start("run", path, "--log", "json")
        assert process.stderr is not None
        said = iter(process.stderr.readline, b"")
        assert any(b'"output": "full"' in line for line in said)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)  # of two of one kind the system may keep one
        assert finish(process)[0] in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_stderr_that_nobody_reads_keeps_it_neither_from_its_work_nor_from_its_end(tmp_path: Path) -> None:
    reader, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, b"x" * 4096)
    os.set_blocking(full, True)
    video = write_video(tmp_path / "a.mp4")
    # It can be started again only where nothing waits for its log.
    again = {"source": str(video), "outputs": ["lines"], "real_time": False, "policy": "wait", "restart_seconds": 0.05}
    later = {**again, "source": str(tmp_path / "later.mp4")}
    path = settings(tmp_path, http={"port": 0}, outputs=outputs(tmp_path), streams={"a": again, "b": later})
    process = subprocess.Popen(command("run", path), cwd=ROOT, stdin=subprocess.DEVNULL, stderr=full)
    wait_for(lambda: count(tmp_path / "a.jsonl") == 9)
    video.rename(tmp_path / "later.mp4")
    wait_for(lambda: count(tmp_path / "b.jsonl") == 9)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        os.close(reader)
        os.close(full)


def test_what_is_not_delivered_in_time_is_said(tmp_path: Path) -> None:
    with camera() as address:
        full = {"full": {"kind": "jsonl", "path": "/dev/full", "policy": "wait", "room": 2}}
        streams = {"a": {"source": address, "outputs": ["full"]}}
        process = start("run", settings(tmp_path, outputs=full, streams=streams, stop_seconds=0.5), "--log", "json")
        assert process.stderr is not None
        said = iter(process.stderr.readline, b"")
        assert any(b'"output": "full"' in line for line in said)
        process.send_signal(signal.SIGTERM)
        code, _, err = finish(process)
    assert code == OTHER_ERROR
    assert "stopped by SIGTERM; not all was delivered in 0.5 s" in err


def test_it_answers_while_it_runs(tmp_path: Path) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(PATIENCE)
    os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    try:
        with camera() as address:
            path = settings(tmp_path, http={"port": 0}, streams={"a": {"source": address}})
            process = start("run", path, "--log", "json")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    assert told.recv(100) == b"READY=1"
    told.close()
    where = address_of(process)
    assert httpx2.get(f"{where}healthz").json() == {"healthy": True}
    assert httpx2.get(f"{where}streams").json()["streams"][0]["name"] == "a"
    assert "rdn_streams 1.0" in httpx2.get(f"{where}metrics").text
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0


def test_streams_that_failed_make_the_exit_code(tmp_path: Path) -> None:
    missing = {"source": str(tmp_path / "none.mp4"), "restart_seconds": None}
    code, _, err = finish(start("run", settings(tmp_path, streams={"a": missing})))
    assert code == BAD_INPUT
    assert err.endswith("rdn-engine: 1 streams ended because they, or their source, failed\n")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"streams": {"a": {}}}, USAGE, "a source among them"),
        ({"streams": {"a": {"source": "env:NO_CAMERA"}}}, BAD_BUNDLE, "none"),
        ({"byte_budget": 0}, USAGE, "byte_budget is 0"),
    ],
)
def test_what_cannot_run_is_one_line(tmp_path: Path, data: dict[str, Any], code: int, words: str) -> None:
    result = run("run", settings(tmp_path, **data))
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_starts_nothing(tmp_path: Path) -> None:
    path = settings(tmp_path, engines=ENGINES, outputs=outputs(tmp_path), streams={"a": {"source": "rtsp://door/1"}})
    result = run("run", path, "--check")
    assert (result.exit_code, result.stderr) == (0, f"{path} can be used: 1 stream, 1 output\n")
    assert run("run", tmp_path / "none.yaml", "--check").exit_code == OTHER_ERROR


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({"engines": "none"}, BAD_BUNDLE, "'none' is not a directory"),
        ({"streams": {"a": {"source": "env:NO_CAMERA"}}}, USAGE, "streams.a.source: the environment variable"),
        ({"streams": {"a": {"source": "x", "dials": {"windw": 4}}}}, USAGE, "perhaps for window"),
        ({"outputs": {"a": {"kind": "webhook", "url": "env:NO_CAMERA"}}}, USAGE, "'NO_CAMERA' is not set"),
        ({"streams": {}}, USAGE, "there are no streams"),
    ],
)
def test_check_finds_what_would_not_start(tmp_path: Path, data: dict[str, Any], code: int, words: str) -> None:
    streams = {"a": {"source": "rtsp://door/1"}}
    result = run("run", settings(tmp_path, **{"engines": ENGINES, "streams": streams, **data}), "--check")
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr


def test_stream_that_does_not_fit_is_wrong_usage(tmp_path: Path) -> None:
    streams = {"a": {"source": "rtsp://127.0.0.1:9/1"}}
    code, _, err = finish(start("run", settings(tmp_path, byte_budget=1, streams=streams)))
    assert (code, "stream 'a' wants" in err) == (USAGE, True), err


def test_why_it_does_not_start_is_json_too(tmp_path: Path) -> None:
    code, _, err = finish(start("run", settings(tmp_path, threads=0), "--log", "json"))
    line = json.loads(err)
    assert (code, line["level"]) == (USAGE, "error")
    assert line["message"].endswith("service.threads is 0; wanted 1..1024")


def test_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        streams = {"a": {"source": "rtsp://127.0.0.1:9/1"}}
        code, _, err = finish(start("run", settings(tmp_path, http={"port": port}, streams=streams)))
    assert (code, err) == (OTHER_ERROR, f"rdn-engine: http 127.0.0.1:{port}: Address already in use\n")


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for(true: Any) -> None:
    pause = threading.Event()
    for _ in range(PATIENCE * 20):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("it did not come to be")


def address_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    for line in iter(process.stderr.readline, b""):
        found = re.search(r"answers at (\S+?)\"", line.decode())
        if found:
            return found[1]
    raise AssertionError("it never said where it answers")
