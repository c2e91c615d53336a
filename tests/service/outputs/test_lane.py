"""When a batch that failed is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.service.outputs.lane import Backoff


@given(first=st.floats(0.01, 10), factor=st.floats(1, 1000), failures=st.integers(1, 2000), after=st.floats(0, 1e9))
def test_delay_doubles_up_to_the_longest(first: float, factor: float, failures: int, after: float) -> None:
    longest = first * factor
    backoff = Backoff(first, longest)
    for _ in range(failures - 1):
        backoff.failed(0.0, 0.0)
    backoff.failed(0.0, 0.0)
    expected = min(longest, first * 2.0 ** min(failures - 1, 1000))
    assert 0.499 * expected <= backoff.until <= 1.001 * expected
    backoff.failed(100.0, after)
    assert 100 + min(after, longest) <= backoff.until <= 100 + 1.001 * longest
    backoff.worked()
    assert backoff.until == 0
    backoff.failed(0.0, 0.0)
    assert backoff.until <= 1.001 * first
