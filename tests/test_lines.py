"""Lines at the end of a file that takes only a part of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdn_engine import lines
from rdn_engine.lines import append_lines, encode_line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    given_lines=st.lists(st.binary(max_size=20).filter(lambda one: b"\n" not in one), min_size=1, max_size=8),
    room=st.integers(0, 200), chunk=st.integers(1, 50),
)  # fmt: skip
def test_only_whole_lines_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_lines: list[bytes], room: int, chunk: int
) -> None:
    """A disk with room for some bytes, that takes a few at once: as write(2) may."""
    left = room
    real = os.write

    def write(file: int, data: bytes) -> int:
        nonlocal left
        if left == 0:
            raise OSError(28, "No space left on device")
        taken = real(file, data[: min(left, chunk)])
        left -= taken
        return taken

    path = tmp_path / "o"
    path.write_bytes(b"before\n")
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    with monkeypatch.context() as patch:
        patch.setattr(lines.os, "write", write)
        written, error = append_lines(file, given_lines)
    os.close(file)
    ends = [sum(len(one) + 1 for one in given_lines[: count + 1]) for count in range(len(given_lines))]
    assert written == sum(end <= room for end in ends)
    assert (error is None) == (written == len(given_lines))
    assert path.read_bytes() == b"before\n" + b"".join(one + b"\n" for one in given_lines[:written])


def test_line_is_json_in_utf8() -> None:
    assert encode_line({"name": "caf\udce9 é"}) == '{"name": "caf\\udce9 é"}'.encode()
