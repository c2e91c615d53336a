"""Signals, while a source is read and while it is silent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rdn_engine.cli.signals import Interrupted, Interrupts
from rdn_engine.media.source import open_source
from tests.cli.commands import PATIENCE, ROOT, finish, lines, start
from tests.media.clips import encode

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def camera() -> Iterator[socket.socket]:
    """A server that says nothing by itself."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


def address(camera: socket.socket, protocol: str = "tcp") -> str:
    return f"{protocol}://127.0.0.1:{camera.getsockname()[1]}"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("protocol", ["tcp", "http", "rtsp"])
def test_silent_source_is_left_before_its_first_frame(
    camera: socket.socket, protocol: str, number: signal.Signals
) -> None:
    process = start("predict", address(camera, protocol), "--engines", ".", "--timeout", 10 * PATIENCE)
    connection, _ = camera.accept()
    process.send_signal(number)
    assert finish(process)[0] == 128 + number
    connection.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_source_that_falls_silent_leaves_whole_files(
    tmp_path: Path, camera: socket.socket, number: signal.Signals
) -> None:
    out, drawn = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    process = start("predict", address(camera), "--engines", ".", "--output", out, "--save-video", drawn, "--json",
                    "--timeout", 10 * PATIENCE)  # fmt: skip
    connection, _ = camera.accept()
    # Without B-pictures; the last picture waits in the demuxer for the next one's start, two in the window.
    connection.sendall(encode(tmp_path / "a.ts", frames=30, bf="0", g="5", grain=60).read_bytes())
    wait_for_lines(out, 20)
    process.send_signal(number)
    code, stdout, stderr = finish(process)
    connection.close()
    assert code == 128 + number
    assert stderr == f"rdn-engine: interrupted by {number.name}; the results so far are kept\n"
    summary = json.loads(stdout)
    found = lines(out)
    assert [d["frame_index"] for d in found] == list(range(len(found)))
    assert found[-1]["pool_fill"] == 3  # the pending results came out: T = L = 2, and nothing after the last frame
    assert (summary["interrupted"], summary["frames"]) == (True, len(found))
    with open_source(drawn) as video:
        assert len(list(video)) == len(found)


def wait_for_lines(path: Path, count: int) -> None:
    """Until somebody else has written that many."""
    for _ in range(PATIENCE * 20):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come to {count} lines")


def script(body: str) -> tuple[int, str, str]:
    """A process of its own, as a signal that ends one at once ends the tests too."""
    head = "import hashlib, os, signal\nfrom rdn_engine.cli.signals import Interrupts\n"
    process = subprocess.Popen(
        [sys.executable, "-c", head + body], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return finish(process)


LONG_CALL = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
"""Minutes in C, in which no handler of Python's runs"""


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_at_once_what_has_nothing_to_finish(number: signal.Signals) -> None:
    code, out, err = script(f"""
import threading
with Interrupts():
    threading.Timer(0.1, lambda: os.kill(os.getpid(), {number:d})).start()
    {LONG_CALL}
""")
    assert (code, out, err) == (128 + number, "", "")


def test_first_signal_is_noted_and_the_second_ends_at_once() -> None:
    code, out, err = script(f"""
import threading
with Interrupts() as interrupts:
    interrupts.patient = True
    os.kill(os.getpid(), signal.SIGTERM)
    while interrupts.number is None:
        pass
    print(interrupts.number, flush=True)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    {LONG_CALL}
""")
    assert (code, out, err) == (128 + signal.SIGINT, f"{signal.SIGTERM:d}\n", "")


def test_what_was_ignored_before_stays_ignored() -> None:
    """As under nohup."""
    code, out, _ = script("""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Interrupts() as interrupts:
    os.kill(os.getpid(), signal.SIGHUP)
    print(interrupts.number, signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
""")
    assert (code, out) == (0, "None True\n")


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(s) for s in SIGNALS]
    with Interrupts():
        assert [signal.getsignal(s) for s in SIGNALS] != before
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_waiting_for_an_item_is_broken_off() -> None:
    silent = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGTERM)
        silent.wait(PATIENCE)

    with Interrupts() as interrupts:
        interrupts.patient = True
        each = interrupts.each(items())
        assert next(each) == 1
        assert not interrupts.reading
        with pytest.raises(Interrupted):
            next(each)
        assert (interrupts.reading, interrupts.number) == (True, signal.SIGTERM)
    silent.set()


def test_signal_between_two_items_comes_before_the_next_one() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in range(3):
            taken.append(i)
            yield i

    with Interrupts() as interrupts:
        interrupts.patient = True
        each = interrupts.each(items())
        assert next(each) == 0
        os.kill(os.getpid(), signal.SIGHUP)
        with pytest.raises(Interrupted):
            next(each)
    assert taken == [0]
    assert not interrupts.reading


def test_what_gave_the_items_is_left_by_who_asked() -> None:
    """A source that two threads close at once crashes."""
    left = []

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            left.append(threading.current_thread())

    for _ in range(50):
        each = Interrupts().each(items())
        assert next(each) == 1
        each.close()
        del each
    assert left == [threading.current_thread()] * 50


def test_items_and_errors_come_as_they_are() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("the end")

    found = []
    with pytest.raises(ValueError, match="the end"):
        found.extend(Interrupts().each(items()))
    assert list(Interrupts().each(range(1, 5))) == [1, 2, 3, 4]
