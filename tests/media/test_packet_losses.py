"""Lost packets are counted by the read that met them, and nobody's logging changes."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator

import av.logging
import pytest

from rdn_engine.media.packet_losses import PacketLosses, loses_packets

WAIT = 60.0


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Every test leaves the log as it was, and as an application finds it that has asked for nothing."""
    before = state()
    assert before[0] is None
    yield
    assert state() == before


def state() -> tuple[object, ...]:
    return av.logging.get_level(), av.logging.get_skip_repeated(), logging.getLogger("libav").level


def say(message: str, level: int = av.logging.WARNING) -> None:
    av.logging.log(level, "rtsp", message)


def test_losses_are_counted_by_the_thread_that_meets_them() -> None:
    """Two cameras say the same line by turns, which PyAV takes for a repeat."""
    turns = [threading.Barrier(2) for _ in range(8)]
    totals: dict[str, int] = {}

    def read(name: str, packets: int) -> None:
        losses = PacketLosses()
        for turn in turns:
            turn.wait(WAIT)
            with losses.counted():
                say("max delay reached. need to consume packet\n", av.logging.WARNING)
                say(f"RTP: missed {packets} packets\n")
        totals[name] = losses.total
        losses.close()

    readers = [threading.Thread(target=read, args=one) for one in (("a", 3), ("b", 3), ("c", 5), ("d", 5))]
    for pair in (readers[:2], readers[2:]):
        for reader in pair:
            reader.start()
        for reader in pair:
            reader.join(WAIT)
    assert totals == {"a": 24, "b": 24, "c": 40, "d": 40}


def test_what_nobody_asked_for_is_logged_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    losses = PacketLosses()
    with losses.counted():
        say("Opening 'rtsp://user:secret@cam/1'\n")
        say("RTP: missed 2 packets\n")
    other = threading.Thread(target=say, args=("error while decoding", av.logging.ERROR))
    other.start()
    other.join(WAIT)
    say("not counted: RTP: missed 7 packets")
    losses.close()
    losses.close()
    assert losses.total == 2
    assert caplog.records == []


def test_what_an_application_asked_for_is_logged_as_before(caplog: pytest.LogCaptureFixture) -> None:
    av.logging.set_level(av.logging.WARNING)
    try:
        losses = PacketLosses()
        with losses.counted():
            say("RTP: missed 2 packets\n")
            say("RTP: missed 2 packets\n")
            say("so much for information", av.logging.INFO)
        assert av.logging.get_level() == av.logging.WARNING
        losses.close()
        assert av.logging.get_level() == av.logging.WARNING
    finally:
        av.logging.set_level(None)
    assert losses.total == 4
    assert [(r.name, r.levelno, r.message) for r in caplog.records] == [
        ("libav.rtsp", logging.WARNING, "RTP: missed 2 packets")
    ] * 2


def test_the_log_stays_on_while_any_source_wants_it_and_goes_off_with_the_last() -> None:
    first, second = PacketLosses(), PacketLosses()
    first.close()
    with second.counted():
        say("RTP: missed 1 packets\n")
    assert second.total == 1
    del second  # nobody closed it
    gc.collect()


def test_what_an_application_asks_for_meanwhile_it_gets(caplog: pytest.LogCaptureFixture) -> None:
    losses = PacketLosses()
    av.logging.set_level(av.logging.ERROR)
    try:
        with losses.counted():
            say("RTP: missed 2 packets\n")
        say("error while decoding", av.logging.ERROR)
        losses.close()
        assert av.logging.get_level() == av.logging.ERROR
    finally:
        av.logging.set_level(None)
    assert losses.total == 0
    assert [record.message for record in caplog.records] == ["error while decoding"]


@pytest.mark.parametrize(
    ("url", "over", "loses"),
    [
        ("rtsp://cam/1", "udp", True), ("RTSPS://cam/1", "udp", True), ("rtsp://cam/1", "tcp", False),
        ("rtp://239.0.0.1:5004", "tcp", True), ("http://cam/a.ts", "udp", False), ("file:a.mp4", "udp", False),
    ],
)  # fmt: skip
def test_only_what_comes_as_packets_loses_them(url: str, over: str, loses: bool) -> None:
    assert loses_packets(url, over) is loses
