"""What a container promised and did not give."""

from __future__ import annotations

from rdn_engine.media.extent import Extent

TICKS = (0.01, 0.01)


def extent(promised: float | None, *, start: float = 0.0, gapless: bool = False) -> Extent:
    return Extent(TICKS, start, promised, allowed=0.25, gapless=gapless)


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


def test_a_jump_of_the_clock_is_no_gap() -> None:
    """Before an advertisement an HLS stream goes on at another time, and is as long as it promises."""
    found = extent(3.0, gapless=True)
    for time in (*range(0, 100, 4), *range(19_900, 20_100, 4)):
        found.read(0, time, 4)
    assert found.shortfall() is None
    found = extent(3.0, gapless=True)
    for time in (*range(0, 100, 4), *range(200, 400, 4)):
        found.read(0, time, 4)
    assert found.shortfall() is None


def test_a_duration_may_count_from_0_wherever_the_first_picture_is() -> None:
    assert read(extent(4.0, start=2.0), range(200, 400, 4)).shortfall() is None
    assert read(extent(4.0, start=-0.08), range(-8, 390, 4)).shortfall() is None


def test_of_a_few_packets_nothing_is_said() -> None:
    found = extent(1.0)
    found.read(0, 0, 0)
    found.read(0, 50, 0)
    assert found.shortfall() is None


def test_nothing_promised_is_nothing_missing() -> None:
    assert read(extent(None), range(0, 200, 4)).shortfall() is None
    found = extent(4.0)
    found.read(0, None, 4)
    assert found.shortfall() is None
