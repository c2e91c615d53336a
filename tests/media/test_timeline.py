"""Pictures that came, and pictures that never did, from timestamps alone."""

from __future__ import annotations

from fractions import Fraction

from rdn_engine.media.clock import CountedClock, PresentationClock
from rdn_engine.media.timeline import Timeline


def timeline(*, reorders: bool = False) -> Timeline:
    return Timeline(PresentationClock(Fraction(1), None), lambda: reorders)


def raw() -> Timeline:
    """of a stream without any times"""
    return Timeline(CountedClock(1.0), lambda: True)


def show(line: Timeline, ticket: int, *, key: bool = False) -> tuple[int, float | None] | None:
    """How many were lost before it, and its time."""
    shown = line.show(ticket, None, key=key)
    return None if shown is None else shown[:2]


def test_without_damage_nothing_is_lost_and_a_second_field_is_no_picture() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(6)]
    assert [show(line, t) for t in tickets[::2]] == [(0, 0.0), (0, 2.0), (0, 4.0)]
    assert line.end() == 0


def test_around_damage_packets_without_a_picture_are_lost() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(6)]
    assert show(line, tickets[0]) == (0, 0.0)
    line.damage(tickets[2])  # and the decoder drops 1, which it was about to hand out
    assert show(line, tickets[3]) == (2, 3.0)
    assert show(line, tickets[1]) is None
    assert show(line, tickets[4]) == (0, 4.0)
    assert line.end() == 1


def test_from_damage_to_the_next_key_picture_what_does_not_come_is_lost() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(12)]
    assert show(line, tickets[0], key=True) == (0, 0.0)
    line.damage(tickets[1])
    assert show(line, tickets[2]) == (1, 2.0)
    assert show(line, tickets[4]) == (1, 4.0)  # 3 depends on what is damaged, and the decoder says nothing
    assert show(line, tickets[6], key=True) == (1, 6.0)
    assert show(line, tickets[8]) == (0, 8.0)
    assert line.end() == 0


def test_pictures_after_a_loss_are_doubtful_until_a_key_picture() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(5)]
    said = []
    for ticket, key in zip(tickets, (True, False, False, True, False), strict=True):
        if ticket == tickets[1]:
            line.doubt()
        shown = line.show(ticket, None, key=key)
        said.append(shown is not None and shown.doubtful)
    assert said == [False, True, True, False, False]


def test_fields_of_interlaced_pictures_are_not_lost_while_in_doubt() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(6)]
    line.doubt()
    assert [line.show(t, None, interlaced=True)[0] for t in tickets[::2]] == [0, 0, 0]  # type: ignore[index]
    assert line.end() == 1  # the last field; nothing says that it is none


def test_display_order_decides_and_not_coding_order() -> None:
    line = timeline(reorders=True)
    first, later, between = (line.send(pts, dts, hidden=False) for dts, pts in enumerate((0, 2, 1)))
    line.damage(later)
    assert show(line, first) == (0, 0.0)
    assert show(line, between) == (0, 1.0)
    assert line.end() == 1


def test_a_restart_of_the_clock_after_damage_loses_no_good_picture() -> None:
    line = timeline()
    before = [line.send(pts, pts, hidden=False) for pts in range(4)]
    assert show(line, before[0]) == (0, 0.0)
    line.damage(before[1])
    line.damage(before[2])
    after = [line.send(pts, pts, hidden=False) for pts in range(4)]
    assert show(line, before[3]) == (2, 3.0)
    assert [show(line, t) for t in after] == [(0, 0.0), (0, 1.0), (0, 2.0), (0, 3.0)]
    assert line.end() == 0


def test_damage_before_a_restart_is_counted_after_it() -> None:
    line = timeline()
    for pts in (10, 11):
        line.damage(line.send(pts, pts, hidden=False))
    assert show(line, line.send(0, 0, hidden=False)) == (2, 0.0)


def test_where_the_place_of_a_picture_is_unknown_only_the_damaged_ones_are_lost() -> None:
    line = raw()
    tickets = [line.send(None, None, hidden=False) for _ in range(4)]
    line.damage(tickets[1])
    line.damage(tickets[1])  # first the decoder fails, then it hands out what it patched
    assert [show(line, t) for t in (tickets[2], tickets[0], tickets[1], tickets[3])] == [
        (1, 1.0),
        (0, 2.0),
        None,
        (0, 3.0),
    ]
    assert line.end() == 0


def test_a_damaged_picture_without_a_ticket_is_counted() -> None:
    line = timeline()
    line.damage(None)
    assert show(line, line.send(0, 0, hidden=False)) == (1, 0.0)
    line.damage(None)
    assert line.end() == 1


def test_a_hidden_packet_is_never_shown_nor_lost() -> None:
    line = timeline()
    hidden = line.send(0, 0, hidden=True)
    line.damage(hidden)
    assert show(line, line.send(1, 1, hidden=False)) == (0, 1.0)
    assert show(line, hidden) is None
    assert line.end() == 0


def test_a_key_picture_in_which_data_may_be_missing_ends_no_doubt() -> None:
    line = timeline()
    tickets = [line.send(pts, pts, hidden=False) for pts in range(6)]
    line.doubt(tickets[2])

    def doubtful(ticket: int) -> bool:
        shown = line.show(ticket, None, key=ticket % 2 == 0)
        assert shown is not None
        return shown.doubtful

    assert [doubtful(ticket) for ticket in tickets] == [True, True, True, True, False, False]
