"""Streams of a service from their sources to their outputs: counted, restarted, changed and closed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import AdmissionRefused, BundleError, ConfigError, StreamClosed
from rdn_engine.frame import Frame
from rdn_engine.service.config import service_settings, stream_settings
from rdn_engine.service.preview import Preview
from rdn_engine.service.service import Service
from tests.media.clips import encode
from tests.serve.doubles import WAIT, watched_detector
from tests.service.doubles import read_lines, service, until

FAST = {"real_time": False, "policy": "wait"}


def whole(tmp_path: Path, frames: int = 12, **stream: Any) -> dict[str, Any]:
    """A file, as fast as it goes, into lines."""
    clip = encode(tmp_path / "clip.mp4", frames=frames)
    return {
        "outputs": {"lines": {"kind": "jsonl", "path": str(tmp_path / "{stream}.jsonl"), "policy": "wait"}},
        "streams": {"door": {"source": str(clip), "outputs": ["lines"], **FAST, **stream}},
    }


def test_every_frame_of_a_file_is_a_line(tmp_path: Path) -> None:
    with service(whole(tmp_path)) as running:
        assert running.wait(WAIT)
        status = running.status()
        assert running.close(drain=True, deadline_s=WAIT)
    lines = read_lines(tmp_path / "door.jsonl")
    assert [line["frame_index"] for line in lines] == list(range(12))
    assert {line["stream"] for line in lines} == {"door"}
    assert all(line["age"] >= 0 for line in lines)
    ended = status["ended"][0]
    assert (ended["name"], ended["end_reason"], ended["frames_in"], ended["frames_out"]) == ("door", "ended", 12, 12)
    assert ended["restart_in_seconds"] is None
    assert running.badly_ended == 0


def test_stream_that_fails_is_started_again(tmp_path: Path) -> None:
    data = whole(tmp_path, restart_seconds=0.02)
    clip = tmp_path / "clip.mp4"
    clip.rename(tmp_path / "later.mp4")
    with service(data) as running:
        until(lambda: running.restarts().get("door", 0) >= 2 or running.status()["ended"])
        (tmp_path / "later.mp4").rename(clip)
        until(lambda: any(one["end_reason"] == "ended" for one in running.status()["ended"]))
        assert running.wait(WAIT)
        assert running.badly_ended == 0
        assert running.close(drain=True, deadline_s=WAIT)
    assert len(read_lines(tmp_path / "door.jsonl")) == 12


def test_why_a_source_gives_nothing_is_told(tmp_path: Path) -> None:
    data = whole(tmp_path)
    data["streams"]["gate"] = {"source": "http://admin:hush@127.0.0.1:9/1", "restart_seconds": None}
    with service(data) as running:
        until(lambda: of(running, "gate")["source_error"])
        assert (
            of(running, "gate")["source_error"] == "http://127.0.0.1:9/1 cannot be opened as video: Connection refused"
        )
        until(lambda: running.status()["ended"])
        assert running.status()["ended"][0]["source_error"] is None, "that of a file came to its end"


def of(running: Service, name: str) -> dict[str, Any]:
    return next(one for one in running.status()["streams"] if one["name"] == name)


def test_dials_that_were_changed_are_those_of_a_stream_that_is_started_again(tmp_path: Path) -> None:
    """With the room that it had, so that they can be turned up again."""
    detector, encoder = watched_detector()
    broken = threading.Event()

    def fail(_: int) -> None:
        if broken.is_set():
            raise MemoryError("no room")

    encoder.watch = fail
    data = whole(tmp_path, frames=400, restart_seconds=0.05, max_failures=1, real_time=True)
    with service(data, detector) as running:
        assert running.set_dials("door", {"window": 1})
        broken.set()
        until(lambda: running.status()["ended"])  # restarts() knows a stream while it runs, and this one hardly does
        broken.clear()
        until(lambda: any(one["state"] == "running" and one["frames_out"] > 3 for one in running.status()["streams"]))
        assert running.status()["streams"][0]["dials"]["window"] == 1
        assert running.set_dials("door", {"window": 2})


def test_file_is_not_started_again_unless_that_is_asked_for(tmp_path: Path) -> None:
    data = whole(tmp_path)
    (tmp_path / "clip.mp4").unlink()
    with service(data) as running:
        assert running.wait(WAIT)
        assert running.badly_ended == 1
        assert running.status()["ended"][0]["end_reason"] == "source"


def test_restart_that_waits_can_be_cancelled(tmp_path: Path) -> None:
    data = whole(tmp_path, restart_seconds=300.0)
    (tmp_path / "clip.mp4").unlink()
    with service(data) as running:
        until(lambda: running.status()["ended"])
        assert running.status()["ended"][0]["restart_in_seconds"] > 200
        with pytest.raises(ConfigError, match="another than those of the streams that run"):
            running.add("door", stream_settings("door", {"source": "x"}))
        running.remove("door", drain=True)
        assert running.wait(WAIT)


def test_streams_come_and_go_while_it_runs(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "clip.mp4"))
    with service({}) as running:
        assert running.status()["streams"] == []
        running.add("door", stream_settings("door", {"source": clip, **FAST}))
        until(lambda: running.status()["ended"])
        running.add("door", stream_settings("door", {"source": clip, **FAST}))
        assert running.wait(WAIT)
        assert [one["name"] for one in running.status()["ended"]] == ["door", "door"]
        with pytest.raises(KeyError):
            running.remove("door", drain=True)
        with pytest.raises(ConfigError, match="outputs is 'none'"):
            running.add("x", stream_settings("x", {"source": clip, "outputs": ["none"]}))
    with pytest.raises(StreamClosed):
        running.add("late", stream_settings("late", {"source": clip}))


def test_dials_change_while_it_runs(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "clip.mp4", frames=200))
    with service({"dials": {"look_ahead": 1}, "streams": {"door": {"source": clip, "policy": "wait"}}}) as running:
        assert running.set_dials("door", {"window": 0})
        dials = running.status()["streams"][0]["dials"]
        assert (dials["window"], dials["look_ahead"]) == (0, 0), "a smaller window takes the look-ahead with it"
        with pytest.raises(ConfigError, match="window"):
            running.set_dials("door", {"window": 9})
        with pytest.raises(ConfigError, match="unknown fields"):
            running.set_dials("door", {"windows": 1})
        with pytest.raises(KeyError):
            running.set_dials("yard", {"window": 0})
        assert running.status()["streams"][0]["dials"] == dials


def test_capacity_leaves_room_for_dials(tmp_path: Path) -> None:
    clip = str(encode(tmp_path / "clip.mp4", frames=200))
    stream = {"source": clip, "policy": "wait", "dials": {"window": 1}, "capacity": {"window": 2}}
    with service({"streams": {"door": stream}}) as running:
        assert running.set_dials("door", {"window": 2})


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"byte_budget": 1}, AdmissionRefused, "'door' wants"),
        ({"dials": {"window": -1}}, ConfigError, "window is -1"),
        (
            {"streams": {"door": {"source": "env:NO_CAMERA"}}},
            ConfigError,
            "streams.door.source: .* 'NO_CAMERA' is not set",
        ),
        ({"http": {"token": "env:NO_CAMERA"}}, ConfigError, "'NO_CAMERA' is not set"),
        ({"trace": {"endpoint": "127.0.0.1:4318"}}, ConfigError, "trace.endpoint is not shown"),
        (
            {"outputs": {"lines": {"kind": "jsonl", "path": "x", "class_names": ["person", "cat"]}}},
            ConfigError,
            r"outputs.lines.class_names is \['person'\]; wanted classes of the model: \['cat'",
        ),
        (
            {"streams": {"door": {"source": "x", "dials": {"nothing": 1}}}},
            ConfigError,
            "streams.door.dials has unknown",
        ),
    ],
)
def test_what_cannot_be_started_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], error: type[Exception], words: str
) -> None:
    monkeypatch.delenv("NO_CAMERA", raising=False)
    before = set(threading.enumerate())
    with pytest.raises(error, match=words):
        Service(service_settings({"engines": "none", **whole(tmp_path), **data}), watched_detector()[0])
    until(lambda: set(threading.enumerate()) <= before)


def test_missing_engines_are_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="none"):
        Service(service_settings({"engines": str(tmp_path / "none")}))


def test_stuck_stage_is_seen_and_over(tmp_path: Path) -> None:
    detector, encoder = watched_detector()
    free, held = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        held.set()
        assert free.wait(WAIT)

    encoder.watch = hold
    data = {**whole(tmp_path), "http": {"port": 0, "stuck_seconds": 0.1}}
    with service(data, detector) as running:
        assert held.wait(WAIT)
        until(lambda: running.stuck() is not None)
        assert not running.status()["healthy"]
        free.set()
        assert running.wait(WAIT)
        assert running.stuck() is None
        assert running.status()["healthy"]


def test_picture_that_cannot_be_made_costs_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Preview, thing: object) -> None:
        raise ValueError("no picture")

    monkeypatch.setattr(Preview, "see", fail)
    monkeypatch.setattr(Preview, "show", fail)
    with service(whole(tmp_path)) as running:
        assert running.wait(WAIT)
        assert running.close(drain=True, deadline_s=WAIT)
    assert len(read_lines(tmp_path / "door.jsonl")) == 12


def test_pictures_are_of_the_frames_that_were_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Frame] = []
    monkeypatch.setattr(Preview, "see", lambda self, frame: seen.append(frame))
    with service(whole(tmp_path)) as running:
        assert running.wait(WAIT)
    assert [frame.index for frame in seen] == list(range(12))


def test_output_that_loses_nothing_holds_up_its_stream_alone(tmp_path: Path) -> None:
    """A full disk: the file of one stream cannot be written, another's can."""
    data = whole(tmp_path, frames=60)
    data["outputs"] = {
        "lines": {"kind": "jsonl", "path": str(tmp_path / "{stream}.jsonl"), "policy": "wait"},
        "full": {"kind": "jsonl", "path": "/dev/full", "policy": "wait", "room": 4, "batch": 1, "first_delay": 0.05},
    }
    clip = str(tmp_path / "clip.mp4")
    data["streams"] = {
        "door": {"source": clip, "outputs": ["full"], "results": 4, **FAST},
        "yard": {"source": clip, "outputs": ["lines"], **FAST},
    }
    with service(data) as running:
        until(lambda: any(one["name"] == "yard" for one in running.status()["ended"]))
        door = running.status()["streams"][0]
        assert door["name"] == "door"
        assert door["frames_out"] < 60
        assert door["outputs"]["full"]["written"] == 0
        assert door["outputs"]["full"]["trouble"] is not None
        assert not running.close(drain=True, deadline_s=1.0)
        last = running.snapshot()
        assert last.streams == ()
    assert len(read_lines(tmp_path / "yard.jsonl")) == 60


def test_stream_whose_output_has_no_room_can_be_removed(tmp_path: Path) -> None:
    data = whole(tmp_path, frames=60, results=4)
    data["outputs"] = {
        "lines": {"kind": "jsonl", "path": "/dev/full", "policy": "wait", "room": 4, "batch": 1, "first_delay": 0.05}
    }
    with service(data) as running:
        until(
            lambda: (
                running.outputs["lines"].counts().get("door") and running.outputs["lines"].counts()["door"].waiting > 4
            )
        )
        running.remove("door", drain=True)
        running.remove("door", drain=False)
        assert running.wait(WAIT)
        ended = running.status()["ended"][0]
        assert ended["end_reason"] == "removed"
        assert ended["frames_in"] == ended["frames_out"] + sum(ended["dropped"].values())
        totals = running.outputs["lines"].totals()
        assert totals.put == totals.dropped["removed"] + totals.waiting
