"""Streams that are added, removed and started again at the same time: nobody's wish is lost, and no name is two's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError
from rdn_engine.service import service as module
from rdn_engine.service.config import stream_settings
from tests.media.clips import encode
from tests.serve.doubles import WAIT, watched_detector
from tests.service.doubles import service, until

FAST = {"real_time": False, "policy": "wait"}
FULL = {"kind": "jsonl", "path": "/dev/full", "policy": "wait", "room": 1, "batch": 1, "first_delay": 0.05}


class Gate:
    """Holds up each restart where its source is looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open, self.shut = threading.Event(), threading.Event(), False
        given = module.given_value

        def held(text: str) -> str:
            if self.shut:
                self.reached.set()
                assert self.open.wait(WAIT)
            return given(text)

        monkeypatch.setattr(module, "given_value", held)


def failing(tmp_path: Path) -> dict[str, Any]:
    return {"streams": {"door": {"source": str(tmp_path / "none.mp4"), "restart_seconds": 0.2}}}


def test_stream_that_is_being_started_again_is_neither_over_nor_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    with service(failing(tmp_path)) as running:
        gate.shut = True
        assert gate.reached.wait(WAIT)
        assert not running.wait(0)
        with pytest.raises(ConfigError, match="another than those of the streams that run"):
            running.add("door", stream_settings("door", {"source": "x"}))
        removed = threading.Thread(target=running.remove, args=("door",), kwargs={"drain": True})
        removed.start()
        gate.shut = False
        gate.open.set()
        removed.join(WAIT)
        assert running.wait(WAIT), "it was removed, and comes back no more"
        assert running.badly_ended == 0


def test_start_that_fails_for_any_reason_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(text: str) -> str:
        failed.set()
        raise RuntimeError("can't start new thread")

    with service(failing(tmp_path)) as running:
        until(lambda: running.status()["ended"])
        with monkeypatch.context() as patched:
            patched.setattr(module, "given_value", fail)
            assert failed.wait(WAIT)
        failures = len(running.status()["ended"])
        until(lambda: len(running.status()["ended"]) > failures)


def test_stream_that_was_removed_while_it_failed_is_not_started_again(tmp_path: Path) -> None:
    """Its last results wait for an output, and it would have been started again after them."""
    detector, encoder = watched_detector()
    seen: list[int] = []

    def fail(value: int) -> None:
        seen.append(value)
        if len(seen) > 10:
            raise RuntimeError("stage")

    encoder.watch = fail
    folder = tmp_path / "folder"
    folder.touch()
    lines = {**FULL, "path": str(folder / "lines.jsonl")}
    clip = str(encode(tmp_path / "clip.mp4", frames=20))
    door = {"source": clip, "outputs": ["lines"], "restart_seconds": 0.01, "max_failures": 1, **FAST}
    with service({"outputs": {"lines": lines}, "streams": {"door": door}}, detector) as running:
        until(lambda: running.status()["streams"][0]["state"] != "running")
        running.remove("door", drain=True)
        folder.unlink()
        assert running.wait(WAIT)
        assert [one["end_reason"] for one in running.status()["ended"]] == ["failed"]


def test_stream_is_removed_at_once_while_all_workers_are_busy(tmp_path: Path) -> None:
    """Between the wish and its last turn its sink must not go on, and wait for the output for ever."""
    detector, encoder = watched_detector()
    busy, free, seen = threading.Event(), threading.Event(), []

    def hold(value: int) -> None:
        seen.append(value)
        if len(seen) == 20:
            busy.set()
            assert free.wait(WAIT)

    encoder.watch = hold
    door = {"source": str(encode(tmp_path / "clip.mp4", frames=40)), "outputs": ["full"], **FAST}
    data = {"workers": 1, "outputs": {"full": FULL}, "streams": {"door": door}}
    with service(data, detector) as running:
        assert busy.wait(WAIT)
        until(lambda: running.outputs["full"].counts()["door"].waiting == 2)
        running.remove("door", drain=False)
        until(lambda: running.snapshot().streams[0].sink_seconds == 0)
        free.set()
        assert running.wait(WAIT)
        ended = running.status()["ended"][0]
        assert ended["frames_in"] == ended["frames_out"] + sum(ended["dropped"].values())


def test_stream_is_always_among_those_that_run_or_those_that_ended(tmp_path: Path) -> None:
    """The scheduler lets go of a stream before the service has noted its end."""
    clip = str(encode(tmp_path / "clip.mp4", frames=2))
    with service({"streams": {"door": {"source": clip, **FAST}}}) as running:
        over = False
        while not over:
            status = running.status()
            over = bool(status["ended"])
            assert [one["name"] for one in (*status["streams"], *status["ended"])] == ["door"]
