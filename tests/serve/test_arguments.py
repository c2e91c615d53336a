"""What nobody can serve is refused before it is begun, by a typed error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import ConfigError, VideoError
from rdn_engine.media.live import LiveSource
from rdn_engine.serve.scheduler import Scheduler
from tests.serve.doubles import WAIT, Camera, FakeSource, Sink, serving, watched_detector


@pytest.mark.parametrize(
    "named",
    [
        {"name": 3}, {"open_source": None}, {"sink": "results.txt"}, {"dials": "x"}, {"capacity": "x"},
        {"options": {"results": 3}},
    ],
    ids=lambda named: next(iter(named)),
)  # fmt: skip
def test_add_refuses_what_it_cannot_serve(named: dict[str, Any]) -> None:
    with serving(watched_detector()[0], byte_budget=2**30) as scheduler:
        with pytest.raises(ConfigError, match=f"{next(iter(named))} is "):
            scheduler.add(**{"name": "door", "open_source": FakeSource, "sink": Sink()} | named)
        snapshot = scheduler.snapshot()
        assert (snapshot.streams, snapshot.admitted_bytes) == ((), 0)
        scheduler.add("door", FakeSource, Sink())


@pytest.mark.parametrize("named", [{"detector": None}, {"on_event": 3}, {"on_push": 3}, {"clock": 3}])
def test_a_scheduler_refuses_what_it_cannot_use(named: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(named))} is "):
        Scheduler(**{"detector": watched_detector()[0]} | named)


def test_a_stream_refuses_what_it_cannot_do() -> None:
    with serving(watched_detector()[0]) as scheduler:
        served = Camera(scheduler, "door", []).served
        wrong: list[tuple[str, Callable[[], Any]]] = [
            ("dials is 'x'", lambda: served.set_dials("x")),  # type: ignore[arg-type]
            ("dials is None", lambda: served.set_dials(None)),  # type: ignore[arg-type]
            ("timeout is 'x'", lambda: served.set_dials(served.snapshot().dials, "x")),  # type: ignore[arg-type]
            ("timeout is -1", lambda: served.wait(-1)),
            ("drain is 'no'", lambda: served.remove(drain="no")),  # type: ignore[arg-type]
            ("reason is 'bored'", lambda: served.remove(drain=True, reason="bored")),  # type: ignore[arg-type]
            ("drain is 1", lambda: scheduler.close(drain=1, deadline_s=1.0)),  # type: ignore[arg-type]
            ("options is None", lambda: scheduler.cost(options=None)),  # type: ignore[arg-type]
            ("dials is 'x'", lambda: scheduler.cost("x")),  # type: ignore[arg-type]
        ]
        for message, call in wrong:
            with pytest.raises(ConfigError, match=message):
                call()
        assert served.snapshot().state == "running"
        served.set_dials(served.snapshot().dials, 1e12)  # longer than a thread can wait
        assert not served.wait(0)


def test_a_live_source_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    for named in ({"address": None}, {"options": 3}, {"on_change": None}, {"opener": None}):
        with pytest.raises(ConfigError, match=f"{next(iter(named))} is "):
            LiveSource(**{"address": "rtsp://cam/1"} | named)  # type: ignore[arg-type]
    live = LiveSource(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="was not started; call start"):
        live.get()
    with pytest.raises(ConfigError, match="timeout is 'x'"):
        live.get("x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout is nan"):
        live.close(float("nan"))
    assert live.close()
    assert live.get() is None


def test_a_source_that_opens_slowly_holds_up_no_other() -> None:
    opening, free = threading.Event(), threading.Event()

    def slow(wake: Callable[[], None]) -> FakeSource:
        opening.set()
        assert free.wait(WAIT)
        return FakeSource(wake)

    with serving(watched_detector()[0]) as scheduler:
        adding = threading.Thread(target=lambda: scheduler.add("slow", slow, Sink()))
        adding.start()
        assert opening.wait(WAIT)
        Camera(scheduler, "other", []).served.remove(drain=False)
        with pytest.raises(ConfigError, match="name is 'slow'"):
            Camera(scheduler, "slow", [])
        free.set()
        adding.join(WAIT)
        assert "slow" in scheduler.streams()
