"""Seconds of pictures, from timestamps alone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rdn_engine.media.clock import ArrivalClock, CountedClock, DecodingClock, PresentationClock

TICK = Fraction(1, 10)


def presented(times: list[int | None], *, settles: bool = False) -> list[float | None]:
    """Seconds of pictures whose packets come in display order, a tenth of a second apart by their rate."""
    clock = PresentationClock(TICK, 0.1, settles=settles)
    found, last = [], 0
    for ticket, pts in enumerate(times):
        clock.send(ticket, pts, None)
        found.append(clock.time(ticket, None, 0, restarted=pts is not None and pts < last))
        last = last if pts is None else pts
    return found


def test_a_picture_is_shown_when_the_container_says_whatever_the_order_of_decoding() -> None:
    clock = PresentationClock(TICK, 0.1)
    for ticket, pts in enumerate((0, 3, 1, 2)):
        clock.send(ticket, pts, ticket)
    assert [clock.time(ticket, None, 0) for ticket in (0, 2, 3, 1)] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_a_picture_without_a_time_follows_the_last_and_the_first_one_has_none() -> None:
    assert presented([None, 1, None, None, 7]) == [None, *(pytest.approx(v) for v in (0.1, 0.2, 0.3, 0.7))]


def test_lost_pictures_take_their_time_before_one_without_a_time() -> None:
    clock = PresentationClock(TICK, 0.1)
    clock.send(0, 5, 5)
    assert clock.time(0, 5, 0) == pytest.approx(0.5)
    assert clock.time(4, None, 3) == pytest.approx(0.9)


def test_the_first_correction_of_a_live_clock_moves_nothing_back() -> None:
    times: list[int | None] = [100, 101, 102, 95, 96, 97]
    assert presented(times, settles=True) == pytest.approx([10, 10.1, 10.2, 10.3, 10.4, 10.5])
    assert presented(times) == pytest.approx([10, 10.1, 10.2, 9.5, 9.6, 9.7])


def test_a_time_before_the_last_one_on_a_clock_that_went_on_is_wrong() -> None:
    """MXF and MPEG-TS cut at their head give such times to B-pictures: one spacing after the last is nearer."""
    clock, found = PresentationClock(TICK, 0.1), []
    for ticket, pts in enumerate((0, 2, 1, 4, 3, 5)):
        clock.send(ticket, pts, ticket)
        found.append(clock.time(ticket, ticket, 0))
    assert found == pytest.approx([0, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found == sorted(t for t in found if t is not None)


@pytest.mark.parametrize(
    "times", [[100, 101, 50, 51], [*range(0, 200, 1), 195, 196]], ids=["a long step", "long after the start"]
)
def test_a_restart_of_a_live_clock_is_passed_on(times: list[int | None]) -> None:
    assert presented(times, settles=True) == pytest.approx([t / 10 for t in times if t is not None])


def test_decoding_times_are_given_out_in_display_order() -> None:
    clock = DecodingClock(TICK, lambda: 16)
    for ticket in range(6):
        clock.send(ticket, None, 10 + ticket)
    assert [clock.time(t, dts, 0) for t, dts in ((0, 12), (3, 13), (2, 14), (1, 15), (5, None), (4, None))] == (
        pytest.approx([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    )
    assert clock.time(None, None, 0) is None


def test_the_time_of_a_lost_picture_is_given_to_nobody() -> None:
    clock = DecodingClock(TICK, lambda: 1)
    for ticket in range(4):
        clock.send(ticket, None, ticket)
    clock.drop(1)
    clock.drop(77)
    assert [clock.time(t, None, 0) for t in (0, 2, 3)] == pytest.approx([0, 0.2, 0.3])


def test_packets_without_a_picture_do_not_delay_the_others() -> None:
    clock = DecodingClock(TICK, lambda: 1)
    found = []
    for dts in range(8):  # the decoder holds one picture back; packets 3 and 5 have none
        clock.send(dts, None, dts)
        if dts not in (0, 3, 5):
            found.append(clock.time(dts - 1, dts, 0))
    assert found == pytest.approx([0, 0.1, 0.3, 0.5, 0.6])


def test_a_raw_stream_is_counted_lost_pictures_included() -> None:
    clock = CountedClock(0.04)
    assert [clock.time(None, None, lost) for lost in (0, 0, 2, 0)] == pytest.approx([0, 0.04, 0.16, 0.2])


def test_arrival_counts_from_the_first_picture() -> None:
    moments = iter([100.0, 100.5, 102.0])
    clock = ArrivalClock(lambda: next(moments))
    assert [clock.time(None, None, 0) for _ in range(3)] == [0.0, 0.5, 2.0]
