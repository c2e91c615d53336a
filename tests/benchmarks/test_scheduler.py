"""What the scheduler's benchmark refuses, and what it makes of its times. No times are judged."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.serve import scheduler
from benchmarks.serve.scheduler import ROOT, ProcessSide, SchedulerSide, throughput

ENGINES = str(ROOT / "models" / "rdn_tiny" / "engines")


class FakeSide:
    """Answers at once; `different` detects something else."""

    different = False

    def __init__(self, kind: str, engines: str, streams: list[int], cores: list[int]) -> None:
        self._kind, self._streams = kind, streams
        self._asked = ""

    def send(self, command: str, *arguments: object) -> None:
        self._asked = command

    def receive(self) -> Any:
        wrong = type(self).different and self._kind == "scheduler"
        answers = {
            "begin": [f"results of {i + wrong}" for i in self._streams],
            "run": 0.1,
            "resident": {"rss": 100.0 if self._kind == "scheduler" else 80.0, "pss": 60.0},
        }
        return answers[self._asked]

    def close(self) -> None:
        pass


def test_sums_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "Side", FakeSide)
    # The warm-up; scheduler, processes, loops; loops, processes, scheduler.
    took = iter([9.0, 9.0, 9.0, 2.0, 4.0, 1.0, 1.6, 8.0, 4.0])
    asked = []

    def wall(sides: list[Any], frames: int) -> float:
        asked.append((len(sides), frames))
        return next(took)

    monkeypatch.setattr(scheduler, "wall", wall)
    found = throughput("", 8, [0, 1], 2, 10, 5)
    assert found["processes"]["rounds"] == [20.0, 10.0]
    assert found["scheduler"]["rounds"] == [40.0, 20.0]
    assert found["loops"]["rounds"] == [80.0, 50.0]
    assert set(asked) == {(1, 10), (8, 10), (2, 40)}
    assert found["scheduler_over_processes"]["p50"] == 2.0
    assert found["scheduler_over_loops"]["p50"] == pytest.approx(0.45)
    assert found["processes"]["mib"] == {"rss": 640.0, "pss": 480.0}
    assert found["memory_over_processes"] == {"rss": 100 / 640, "pss": 60 / 480}


def test_nothing_is_timed_where_they_do_not_detect_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Different(FakeSide):
        different = True

    monkeypatch.setattr(scheduler, "Side", Different)
    with pytest.raises(SystemExit, match="do not detect the same"):
        throughput("", 2, [0], 1, 10, 5)


def test_both_sides_detect_the_same() -> None:
    served = SchedulerSide(ENGINES, [0, 1], 2).begin(12)
    assert served[0] != served[1]
    assert served == [digest for i in (0, 1) for digest in ProcessSide(ENGINES, [i], 1).begin(12)]
