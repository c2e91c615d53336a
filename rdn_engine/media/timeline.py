"""Which packets of a stream became pictures, and how many never did."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from rdn_engine.media.clock import Clock

_HELD = 64
"""More packets than any decoder holds."""


class Shown(NamedTuple):
    """A whole picture that came out of the decoder."""

    lost: int
    """Pictures before it, since the last one, that never came."""
    time: float | None
    """Seconds on the source's clock; None where it has not said any yet."""
    doubtful: bool
    """Whether data was lost since the last picture that depends on no other: what is seen may be patched."""


class Timeline:
    """Follows the packets of one stream into a decoder, and its pictures out of it.

    Each packet gets a ticket, which the decoder hands on with the picture. So two packets with the same timestamp, from
    before and after a restart of the clock, are never taken for each other.

    Pictures come out in display order, errors come up in coding order, and a decoder that fails on a packet may drop
    the picture that it was about to hand out, and later ones that depend on it. So from damage to the next key picture
    every packet that should have been shown by now is lost; elsewhere one without a picture is no loss (the second
    field of an interlaced picture).
    """

    def __init__(self, clock: Clock, reorders: Callable[[], bool]) -> None:
        """Start before the first packet.

        Args:
            clock: of the stream.
            reorders: whether the decoder hands pictures out in another order than they come in.
        """
        self._clock = clock
        self._reorders = reorders
        self._tickets = 0
        self._restarts = 0
        self._last_dts: int | None = None
        self._sent: dict[int, tuple[int, int]] = {}
        """Tickets of packets whose picture has not come, with their place in display order, where it is known"""
        self._shown = (-1, 0)
        """Place of the last picture that came"""
        self._damaged: set[int] = set()
        """Those of them on which the decoder failed"""
        self._gone: deque[int] = deque(maxlen=_HELD)
        """Tickets of lost or hidden pictures: after damage a decoder may hand out an older picture late"""
        self._lost = 0
        """Pictures lost since the last one, whose place in display order is not known"""
        self._doubtful = False
        self._unclean = -1
        """Ticket up to which a key picture may be damaged itself, and ends no doubt"""

    def send(self, pts: int | None, dts: int | None, *, hidden: bool) -> int:
        """A packet goes into the decoder.

        Args:
            pts, dts: its timestamps, in ticks of the stream's time base.
            hidden: its picture is not to be shown; others are predicted from it.

        Returns:
            Its ticket.
        """
        ticket = self._tickets
        self._tickets += 1
        if dts is not None:
            self._restarts += self._last_dts is not None and dts < self._last_dts
            self._last_dts = dts
        if hidden:
            self._gone.append(ticket)
            return ticket
        self._clock.send(ticket, pts, dts)
        place = dts if pts is None and not self._reorders() else pts
        if place is not None:
            self._sent[ticket] = (self._restarts, place)
        return ticket

    def damage(self, ticket: int | None) -> None:
        """The decoder failed on a packet, or handed out a damaged picture.

        Args:
            ticket: of the packet; None where the decoder does not say.
        """
        if not self._doubtful:
            self._forget_shown()
        self._doubtful = True
        if ticket in self._sent:
            self._damaged.add(ticket)
        elif ticket is None or ticket not in self._gone:
            self._lost += 1
            self._give_up(ticket)

    def doubt(self, unclean: int = -1) -> None:
        """Data is missing in what is sent from now on, and the decoder may not notice.

        Args:
            unclean: ticket of the last packet in which it may be missing: a key picture up to there is one of the
                doubtful.
        """
        self._unclean = max(self._unclean, unclean)
        if not self._doubtful:
            self._forget_shown()
        self._doubtful = True

    def show(self, ticket: int | None, dts: int | None, *, key: bool = False, interlaced: bool = False) -> Shown | None:
        """A picture came out whole.

        Args:
            ticket: of the packet that it was coded in; None where the decoder does not say.
            dts: of the packet that brought it out; None where nothing did, after the last packet.
            key: whether it depends on no other picture.
            interlaced: whether it may have been coded in two packets.

        Returns:
            What is known of it; None for one that was counted as lost already.
        """
        if ticket in self._damaged or ticket in self._gone:
            return None
        lost, self._lost = self._lost, 0
        place = self._sent.pop(ticket, None) if ticket is not None else None
        restarted = place is None or place[0] != self._shown[0]
        if place is not None:
            if self._damaged or (self._doubtful and not interlaced):
                before = [sent for sent, its_place in self._sent.items() if its_place < place]
                lost += len(before)
                for sent in before:
                    del self._sent[sent]
                    self._give_up(sent)
            self._shown = place
            if self._damaged or interlaced or len(self._sent) > _HELD:
                self._forget_shown()
        clean = key and (ticket is None or ticket > self._unclean)
        self._doubtful &= not clean or bool(self._damaged)
        return Shown(lost, self._clock.time(ticket, dts, lost, restarted=restarted), self._doubtful)

    def end(self) -> int:
        """No more pictures come.

        Returns:
            How many were lost after the last one.
        """
        return self._lost + (len(self._sent) if self._damaged or self._doubtful else 0)

    def _forget_shown(self) -> None:
        """Packets without a picture of their own, whose time has passed."""
        self._sent = {ticket: place for ticket, place in self._sent.items() if place > self._shown}
        self._damaged &= self._sent.keys()

    def _give_up(self, ticket: int | None) -> None:
        if ticket is not None:
            self._gone.append(ticket)
            self._clock.drop(ticket)
