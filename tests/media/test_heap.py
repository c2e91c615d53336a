"""What decoders freed goes back to the system, not too often."""

from __future__ import annotations

from rdn_engine.media.heap import HEAP, SECONDS, Heap


def test_it_is_given_back_once_in_a_while() -> None:
    now, calls = [100.0], []
    heap = Heap(lambda keep: calls.append((now[0], keep)) or 1, lambda: now[0])  # type: ignore[func-returns-value]
    for now[0] in (100.0, 100.0, 100.0 + SECONDS / 2, 100.0 + SECONDS, 101.0 + SECONDS, 200.0):
        heap.give_back()
    assert calls == [(100.0, 0), (100.0 + SECONDS, 0), (200.0, 0)]


def test_a_library_without_it_is_no_fault() -> None:
    Heap(None).give_back()
    HEAP.give_back()
