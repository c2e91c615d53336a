"""Videos into a folder of results: whole or not there, once, again only where something changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions, VideoSource
from rdn_engine.media.source import open_source
from rdn_engine.results import Detections
from rdn_engine.serve.archive import Archive, Piece
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.recordings import Recording, recordings
from rdn_engine.serve.segments import Segment
from tests.serve.recorded import ENGINES, detector, told, unsplit
from training.data.synthetic import write_clip

FRAMES = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, num_frames=FRAMES)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    dials = detector().config.dials.turned({"window": 2, "link": "relations", "link_delay": 3})
    return Archive(ENGINES, tmp_path / "out", dials, DetectorOptions(threads=1))


@pytest.fixture
def recording(tmp_path: Path, clip: Path) -> Recording:
    shutil.copy(clip, tmp_path / "a.mp4")
    return Recording(str(tmp_path / "a.mp4"), "sub/a.mp4")


def no_frames(source: VideoSource) -> Iterable[Frame]:
    raise AssertionError("the video is read")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read(path: str | Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_results_are_those_of_a_stream(archive: Archive, recording: Recording) -> None:
    outcome = archive.detect(detector(), recording)
    assert outcome.output == str(archive.output / "sub" / "a.mp4.jsonl")
    assert read(outcome.output) == told(unsplit(archive.dials, open_source(recording.path)))
    assert (outcome.error, outcome.frames, outcome.epochs, outcome.before) == (None, FRAMES, 1, False)
    assert outcome.whole
    assert files(archive.output) == ["sub/a.mp4.jsonl", "sub/a.mp4.outcome.json"]


def test_parquet_holds_what_the_lines_hold(archive: Archive, recording: Recording) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    outcome = replace_form(archive).detect(detector(), recording)
    assert outcome.output is not None
    rows = parquet.read_table(outcome.output).to_pylist()
    names = detector().config.class_names
    assert told(Detections.from_dict(row, names) for row in rows) == told(
        unsplit(archive.dials, open_source(recording.path))
    )


def replace_form(archive: Archive) -> Archive:
    return replace(archive, form="parquet")


def test_what_is_done_is_not_done_again(archive: Archive, recording: Recording) -> None:
    first = archive.detect(detector(), recording)
    assert archive.done(recording) == replace(first, before=True)
    assert archive.detect(detector(), recording, no_frames) == replace(first, before=True)
    # Another time of the same content: its content says that it is done, and from then on its time.
    os.utime(recording.path, (1, 1))
    assert archive.done(recording) is None
    assert archive.detect(detector(), recording, no_frames).before
    assert archive.done(recording) is not None


def test_another_content_dial_model_or_missing_file_is_done_again(
    archive: Archive, recording: Recording, tmp_path: Path
) -> None:
    outcome = archive.detect(detector(), recording)
    assert outcome.output is not None
    for other in (
        replace(archive, dials=replace(archive.dials, link_delay=4)),
        replace(archive, options=replace(archive.options, ring_precision="float16")),
        replace(archive, source=replace(archive.source, deinterlace=True)),
    ):
        assert other.done(recording) is None
    assert replace(archive, options=replace(archive.options, threads=2)).done(recording) is not None
    shutil.copytree(ENGINES, tmp_path / "engines")
    manifest = tmp_path / "engines" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert replace(archive, engines=tmp_path / "engines").done(recording) is None

    write_clip(recording.path, index=1, num_frames=FRAMES - 5)
    assert archive.done(recording) is None
    assert archive.detect(detector(), recording).frames == FRAMES - 5
    Path(outcome.output).unlink()
    assert archive.done(recording) is None
    for unread in ("{}", "[" * 200_000):
        (archive.output / "sub" / "a.mp4.outcome.json").write_text(unread)
        assert archive.done(recording) is None
        assert archive.detect(detector(), recording).frames == FRAMES - 5


@pytest.mark.parametrize("data", [b"", b"no video", None])
def test_a_corrupt_video_is_an_outcome_and_is_tried_again(
    archive: Archive, recording: Recording, clip: Path, data: bytes | None
) -> None:
    archive.detect(detector(), recording)
    if data is None:
        Path(recording.path).unlink()
    else:
        Path(recording.path).write_bytes(data)
    outcome = archive.detect(detector(), recording)
    assert outcome.error
    assert (outcome.output, outcome.frames) == (None, 0)
    assert files(archive.output) == ["sub/a.mp4.outcome.json"], "results of another content are gone"
    assert archive.done(recording) is None
    shutil.copy(clip, recording.path)
    assert archive.detect(detector(), recording).whole


def test_a_video_that_ends_badly_keeps_its_results_and_is_tried_again(archive: Archive, recording: Recording) -> None:
    def torn(source: VideoSource) -> Iterator[Frame]:
        for frame in source:
            if frame.index == 12:
                raise VideoError("torn")
            yield frame

    outcome = archive.detect(detector(), recording, torn)
    assert (outcome.error, outcome.frames, outcome.whole) == ("torn", 12, False)
    assert outcome.output is not None
    assert len(read(outcome.output)) == 12
    assert archive.done(recording) is None


def test_an_error_of_one_video_that_nobody_expects_is_its_outcome(archive: Archive, recording: Recording) -> None:
    def broken(source: VideoSource) -> Iterator[Frame]:
        yield next(iter(source))
        raise TypeError("a decoder's own")

    assert archive.detect(detector(), recording, broken).error == "TypeError: a decoder's own"


def test_what_is_broken_off_leaves_nothing(archive: Archive, recording: Recording) -> None:
    def broken_off(source: VideoSource) -> Iterator[Frame]:
        yield from list(source)[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.detect(detector(), recording, broken_off)
    assert files(archive.output) == []


def test_a_disk_without_room_is_the_outcome_of_a_video(archive: Archive, recording: Recording) -> None:
    archive.output.write_text("a file, where a folder should be")
    outcome = archive.detect(detector(), recording)
    assert outcome.output is None
    assert outcome.error is not None
    assert "Not a directory" in outcome.error or "File exists" in outcome.error


def test_a_video_that_changes_while_it_is_read_is_not_done(
    archive: Archive, recording: Recording, tmp_path: Path
) -> None:
    write_clip(tmp_path / "longer.mp4", num_frames=FRAMES + 3)

    def growing(source: VideoSource) -> Iterator[Frame]:
        for frame in source:
            if frame.index == 9:
                os.replace(tmp_path / "longer.mp4", recording.path)
            yield frame

    assert archive.detect(detector(), recording, growing).error is None
    assert archive.done(recording) is None
    assert archive.detect(detector(), recording).frames == FRAMES + 3


def test_results_of_other_dials_at_once_are_not_done(
    archive: Archive, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run puts its results there between the results and the outcome of this one."""
    other = replace(archive, dials=replace(archive.dials, link_delay=4))
    record = Archive._record

    def late(self: Archive, *given: Any) -> None:
        if self is archive:
            monkeypatch.setattr(Archive, "_record", record)
            other.detect(detector(), recording)
        record(self, *given)

    monkeypatch.setattr(Archive, "_record", late)
    archive.detect(detector(), recording)
    assert archive.done(recording) is other.done(recording) is None


def test_another_run_that_begins_leaves_what_is_being_written(archive: Archive, recording: Recording) -> None:
    def swept(source: VideoSource) -> Iterator[Frame]:
        for frame in source:
            if frame.index == 9:
                archive.sweep()
            yield frame

    assert archive.detect(detector(), recording, swept).whole
    assert archive.done(recording) is not None


def test_a_model_that_is_built_again_in_its_place_is_another(
    archive: Archive, recording: Recording, tmp_path: Path
) -> None:
    shutil.copytree(ENGINES, tmp_path / "engines")
    first = replace(archive, engines=tmp_path / "engines")
    first.detect(detector(), recording)
    manifest = tmp_path / "engines" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert replace(first).done(recording) is None


def test_how_long_a_network_may_be_silent_changes_no_result(archive: Archive, recording: Recording) -> None:
    archive.detect(detector(), recording)
    assert replace(archive, source=SourceOptions(timeout=3.0, rtsp_over="udp")).done(recording) is not None


def test_a_segment_that_cannot_be_read_is_made_again(archive: Archive, recording: Recording) -> None:
    pieces = [Piece(recording, one, i) for i, one in enumerate((Segment(0, 8), Segment(8, None)))]
    for piece in pieces:
        archive.detect_piece(detector(), piece)
    [held] = archive.output.rglob("0-8.npz")
    held.write_bytes(held.read_bytes()[:99])
    assert "no segment of a video" in str(archive.join_pieces(pieces).error)
    for piece in pieces:
        archive.detect_piece(detector(), piece)
    # What an earlier run with segments of another length left goes too.
    (held.parent / "8-16.npz").write_bytes(b"")
    assert archive.join_pieces(pieces).whole
    assert list((archive.output / ".segments").iterdir()) == []


def test_pieces_are_joined_to_the_same_results(archive: Archive, recording: Recording) -> None:
    whole = replace(archive, output=archive.output / "whole").detect(detector(), recording)
    segments = [Segment(0, 8), Segment(8, 15), Segment(15, None)]
    pieces = [Piece(recording, one, i) for i, one in enumerate(segments)]
    for piece in pieces[::-1]:
        assert archive.detect_piece(detector(), piece) is None
    joined = archive.join_pieces(pieces)
    assert joined.output is not None
    assert whole.output is not None
    assert Path(joined.output).read_bytes() == Path(whole.output).read_bytes()
    assert replace(joined, output=None, seconds=0) == replace(whole, output=None, seconds=0)
    assert archive.done(recording) is not None
    assert files(archive.output / ".segments") == []


def test_two_videos_of_the_same_content_do_not_share_segments(
    archive: Archive, recording: Recording, tmp_path: Path
) -> None:
    copy = Recording(str(tmp_path / "b.mp4"), "sub/b.mp4")
    shutil.copy(recording.path, copy.path)
    # What an earlier run found by another way to it names that.
    other = Recording(str(tmp_path / "out" / ".." / "a.mp4"), recording.name)
    archive.output.mkdir()
    assert archive.detect_piece(detector(), Piece(other, Segment(0, 8))) is None
    both = [[Piece(one, Segment(0, 8), 0), Piece(one, Segment(8, None), 1)] for one in (recording, copy)]
    for pieces in both:
        for piece in pieces:
            assert archive.detect_piece(detector(), piece) is None
    for pieces in both:
        outcome = archive.join_pieces(pieces)
        assert outcome.output is not None, outcome.error
        assert {line["source_id"] for line in read(outcome.output)} == {pieces[0].recording.path}
    assert files(archive.output / ".segments") == []


def test_segments_go_however_their_video_is_done(archive: Archive, recording: Recording) -> None:
    piece = Piece(recording, Segment(0, 8))
    archive.detect_piece(detector(), piece)
    [held] = archive.output.rglob("0-8.npz")
    waiting = held.read_bytes()
    archive.sweep()
    assert held.exists(), "its video is not done"
    assert archive.detect(detector(), recording).whole
    assert files(archive.output / ".segments") == []
    for done in (lambda: archive.done(recording), lambda: archive.detect(detector(), recording, no_frames)):
        held.parent.mkdir(parents=True)
        held.write_bytes(waiting)  # as of a run that was killed behind its outcome
        assert done() is not None
        assert files(archive.output / ".segments") == []
    archive.sweep()
    assert not (archive.output / ".segments").exists()


def test_a_segment_that_was_found_is_not_found_again(
    archive: Archive, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [Piece(recording, one, i) for i, one in enumerate((Segment(0, 8), Segment(8, None)))]
    archive.detect_piece(detector(), pieces[0])
    monkeypatch.setattr("rdn_engine.serve.archive.detect_segment", no_frames)
    assert archive.detect_piece(detector(), pieces[0]) is None
    other = archive.detect_piece(detector(), pieces[1])
    assert other is not None
    assert other.error
    assert json.loads((archive.output / "sub" / "a.mp4.outcome.json").read_text())["outcome"]["error"] == other.error
    assert archive.join_pieces(pieces).error, "a segment is missing"


def test_a_glob_names_videos_by_what_is_behind_its_fixed_part(tmp_path: Path) -> None:
    for name in ("a/10.mp4", "a/2.mp4", "b/c/2.mp4", "b/x.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = recordings(str(tmp_path / "a" / "*.mp4"))
    assert found is not None
    assert [one.name for one in found] == ["2.mp4", "10.mp4"]
    found = recordings(str(tmp_path / "**" / "*.mp4"))
    assert found is not None
    assert [one.name for one in found] == ["a/2.mp4", "a/10.mp4", "b/c/2.mp4"]
    for other in ("a/2.mp4", "b/*.png", "b/*", "b", "none.mp4"):
        assert recordings(str(tmp_path / other)) is None
    with pytest.raises(VideoError, match=r"none/\*.mp4 names no file; wanted a glob of videos"):
        recordings(str(tmp_path / "none" / "*.mp4"))
    with pytest.raises(VideoError, match=r"a holds no image; .* '.*a/\*.mp4'"):
        recordings(str(tmp_path / "a"))
    (tmp_path / "a" / "1.AVI").write_bytes(b"")
    (tmp_path / "a" / "3.AVI").write_bytes(b"")
    (tmp_path / "a" / "4.AVI").write_bytes(b"")
    with pytest.raises(VideoError, match=r"for its videos a glob: '.*/a/\*.AVI'"):
        recordings(str(tmp_path / "a"))
    with pytest.raises(VideoError, match=r"for its videos a glob: '.*/\*\*/\*.mp4'"):
        recordings(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match=r"for its videos a glob: '.*/empty/\*.mp4'"):
        recordings(str(tmp_path / "empty"))
    assert recordings("rtsp://camera/*") is None
    assert recordings("") is None, "which is not the current folder"
    # However often a glob finds a file, and nowhere but below the folder of results.
    found = recordings(str(tmp_path / "**" / "**" / "*.mp4"))
    assert found is not None
    assert [one.name for one in found] == ["a/2.mp4", "a/10.mp4", "b/c/2.mp4"]
    with pytest.raises(VideoError, match="goes up again"):
        recordings(str(tmp_path / "b" / "*" / ".." / ".." / "a" / "2.mp4"))
