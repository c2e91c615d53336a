"""Memory that is not there, and how many proposals a frame gives: the same words and numbers on every machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError
from rdn_engine.stream.room import room_for
from tests.device_models import DIALS, assert_same, frames, small_config, small_model
from tests.emulated_gpu import EmulatedGpu


def test_no_room_is_an_error_of_the_dials() -> None:
    dials = Dials(window=4, num_support=5, num_reference=6, advanced_ratio=0.25)
    wanted = r"a stream for T = 4, K = 5, N = 6, r = 0\.25 does not fit into some memory \(7 bytes\); wanted smaller"
    with pytest.raises(ConfigError, match=wanted), room_for(dials, "some memory"):
        raise MemoryError("7 bytes")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), room_for(Dials()):
        raise KeyError("x")


@pytest.mark.parametrize("machine", ["host", "device"])
def test_a_frame_gives_no_fewer_reference_than_support_proposals(machine: str) -> None:
    """K of the capacity stands ready, so that it can be turned up within a window."""
    model, (*first, last) = small_model(small_config()), frames(3)
    detector: Any = model.on_cpu() if machine == "host" else model.on(EmulatedGpu())
    few, most = replace(DIALS, num_support=2, num_reference=2), replace(DIALS, num_support=5, num_reference=6)
    stream = detector.open_stream(few, capacity=most)
    assert stream.num_proposals == (5, 5)
    for frame in first:
        stream.push(frame)
    stream.dials = replace(few, num_reference=5, num_support=5)
    *_, got = [*stream.push(last), *stream.flush()]
    there = detector.open_stream(replace(few, num_reference=5, num_support=5))
    *_, wanted = [r for frame in (*first, last) for r in there.push(frame)] + there.flush()
    assert len(wanted) > 0
    assert_same(got, wanted)
    stream.dials = most
    assert stream.num_proposals == (6, 5)
