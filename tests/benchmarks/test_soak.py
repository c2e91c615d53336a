"""What counts as growth."""

from __future__ import annotations

from benchmarks.report.serve_tables import fault_table
from benchmarks.serve.settled import Sample, judge, settled
from benchmarks.serve.soak import sample


def samples(*resident: float, threads: int = 9, descriptors: int = 20) -> list[Sample]:
    return [Sample(float(i), mib, threads, descriptors) for i, mib in enumerate(resident)]


def test_what_stays_is_well_and_the_warm_up_does_not_count() -> None:
    whole = samples(50, 90, 95, 97, *[100.0, 100.9, 99.1] * 3)
    assert judge(whole) == []
    assert settled(whole) == whole[4:]


def test_what_grows_is_said() -> None:
    [said] = judge(samples(*[100.0] * 10, 102.0))
    assert said == "resident memory of 102.0 MiB is +2.00% off the median 100.0"
    [said] = judge([*samples(*[100.0] * 10), *samples(100.0, threads=10)])
    assert said == "threads are 9, 10; wanted one number"
    [said] = judge([*samples(*[100.0] * 10), *samples(100.0, descriptors=21)])
    assert said == "descriptors are 20, 21; wanted one number"


def test_a_sample_is_of_this_process() -> None:
    one = sample(0.0)
    assert one.resident_mib > 1
    assert one.threads >= 1
    assert one.descriptors >= 3


def test_an_account_that_is_not_exact_stands_out() -> None:
    fate = dict.fromkeys(("frames_in", "frames_out", "waiting", "inside", "doubtful", "damaged", "lost_packets",
                          "sessions", "failures", "epochs"), 1)  # fmt: skip
    row = fault_table([fate | {"fault": "f", "dropped": {"source": 2}, "back_seconds": 1.5, "exact": False}])
    assert row.splitlines()[-1] == "| f | 1 | 1 | source 2 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1.50 | NO |"
