"""What a container promised and did not give."""

from __future__ import annotations

from rdn_engine.media.extent import Extent

TICKS = (0.01, 0.01)


def extent(promised: float | None, *, start: float = 0.0, gapless: bool = False) -> Extent:
    return Extent(TICKS, start, promised, 0.04, rounding=0.25, gapless=gapless)


def read(found: Extent, times: range, stream: int = 0) -> Extent:
    for time in times:
        found.read(stream, time, 4)
    return found


def test_all_that_was_promised_came() -> None:
    assert read(extent(4.0), range(0, 400, 4)).shortfall() is None
    assert read(extent(4.0, start=10.0), range(1000, 1400, 4)).shortfall() is None
    assert read(extent(4.2), range(0, 400, 4)).shortfall() is None


def test_a_missing_end_is_said() -> None:
    assert read(extent(4.0), range(0, 200, 4)).shortfall() == "ends after 2.00 of 4.00 s"


def test_another_stream_may_be_the_longest() -> None:
    found = read(extent(4.0), range(0, 200, 4))
    assert read(found, range(0, 400, 4), stream=1).shortfall() is None


def test_a_gap_counts_only_where_segments_follow_each_other() -> None:
    times = [*range(0, 100, 4), *range(200, 300, 4)]
    for gapless, wanted in ((False, None), (True, "lacks 1.00 of 3.00 s")):
        found = extent(3.0, gapless=gapless)
        for time in times:
            found.read(0, time, 4)
        assert found.shortfall() == wanted


def test_nothing_promised_is_nothing_missing() -> None:
    assert read(extent(None), range(0, 200, 4)).shortfall() is None
    found = extent(4.0)
    found.read(0, None, 4)
    assert found.shortfall() is None
