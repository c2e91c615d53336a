"""A file of results: whole or not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rdn_engine.errors import BackendUnavailable
from rdn_engine.serve.atomic import replacing, sweep
from rdn_engine.serve.result_files import ResultFormat, check_format, result_file
from tests.fakes import fake_detector, image


def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a"
    with replacing(path) as place:
        place.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(TypeError), replacing(path) as place, place.open("w") as file:
        file.writelines(["half of the sec", 2])  # type: ignore[list-item]
    assert [one.name for one in path.parent.iterdir()] == ["a"]
    assert path.read_text() == "first"


def test_two_may_write_at_once_and_the_last_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as one:
        one.write_text("one")
        with replacing(path) as other:
            other.write_text("other")
        assert path.read_text() == "other"
    assert path.read_text() == "one"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.mp4.part"
    with replacing(path) as place:
        place.write_text("whole")
    other = path.with_name(".download.part")
    for name in (place, path.with_name(".b.txt"), other):
        name.write_text("")
    with replacing(path) as written:
        written.write_text("more")
        sweep(tmp_path)
        assert not place.exists()
    assert path.read_text() == "more", "what somebody is writing stays"
    assert {one.name for one in path.parent.iterdir()} == {path.name, ".b.txt", other.name}


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    with replacing(tmp_path / ("a" * 255)) as place:
        place.write_text("whole")
    assert (tmp_path / ("a" * 255)).read_text() == "whole"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_results_are_counted(tmp_path: Path, form: ResultFormat) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    path = tmp_path / "a"
    results = fake_detector()[0].predict([image(1), image(2), image(3, 20, 20)])
    with result_file(path, form) as file:
        file.write(results)
    assert (file.frames, file.epochs) == (3, 2)
    assert file.per_class.total() == sum(map(len, results)) > 0
    with pytest.raises(IsADirectoryError), result_file(path, form) as file:
        tmp_path.write_text("")
    assert len(list(tmp_path.iterdir())) == 1


def test_parquet_without_pyarrow_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailable, match="pip install pyarrow"):
        check_format("parquet")
    check_format("jsonl")
