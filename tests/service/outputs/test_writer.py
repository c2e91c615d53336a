"""Names of streams in paths and topics."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdn_engine.service.outputs.writer import place_of

NAME = st.text(st.characters() | st.sampled_from("./%-a1"), max_size=300)


@given(names=st.lists(NAME, min_size=2, max_size=2, unique=True), suffix=st.sampled_from(["", ".jsonl", "/r.jsonl"]))
def test_no_two_streams_share_a_place(names: list[str], suffix: str) -> None:
    first, second = (place_of("{stream}" + suffix, name) for name in names)
    assert first != second


@given(NAME)
def test_name_is_one_part_and_no_way_out(name: str) -> None:
    part = place_of("{stream}", name)
    assert not set(part) & set("/+#\0\\")
    assert part not in (".", "..")
    assert len(part.encode()) < 200


def test_usual_names_stay_as_they_are() -> None:
    assert place_of("results/{stream}.jsonl", "Door_1.north-a") == "results/Door_1.north-a.jsonl"
    assert place_of("a/{stream}/{stream}", "hall door/ü") == "a/hall%20door%2F%C3%BC/hall%20door%2F%C3%BC"
    assert place_of("all.jsonl", "door") == "all.jsonl"
