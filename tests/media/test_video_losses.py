"""What is damaged, lost or missing in a video: counted, said, and never invented."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rdn_engine.errors import VideoError
from rdn_engine.media.source import open_source
from tests.media.clips import (
    B_PICTURES,
    FPS,
    HEIGHT,
    WIDTH,
    coded_picture,
    damage,
    encode,
    picture,
    read,
    remux,
)

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


VLC = {"coder": "vlc"}
"""Of H.264's two entropy coders the one in which a decoder notices noise; in the other only headers can be checked."""


@pytest.mark.parametrize(
    ("codec", "name", "keep", "options"),
    [
        ("libx264", "a.mp4", 0, {"bf": "0", "g": "250"}),
        ("libx264", "a.mp4", 0, {"bf": "2", "b-adapt": "0", "g": "10"}),
        ("libx264", "a.mp4", 40, {"bf": "0", "g": "250", **VLC}),
        ("libx264", "a.mp4", 40, {"bf": "2", "b-adapt": "0", "g": "10", **VLC}),
        ("mjpeg", "a.avi", 0, {}),
        ("mjpeg", "a.avi", 700, {}),
        ("mpeg4", "a.mp4", 0, {}),
        ("mpeg4", "a.mp4", 40, {}),
        ("mpeg4", "a.avi", 40, {}),
    ],
)
@pytest.mark.parametrize("nth", [7, 8, 9, 10])
def test_damaged_frame_is_skipped_and_counted_and_decoding_goes_on(
    tmp_path: Path, codec: str, name: str, keep: int, options: dict[str, str], nth: int
) -> None:
    path = encode(tmp_path / name, codec, grain=60, **options)
    whole, _ = read(path)
    damage(path, nth, keep)
    frames, skipped = read(path)
    assert skipped >= 1
    assert len(frames) + skipped == 20
    # Numbers follow the time, so that the skipped ones leave their gaps.
    assert [f.index for f in frames] == [round(f.pts * FPS) for f in frames if f.pts is not None]
    assert frames[-1].index == 19
    # What was coded before the damage is untouched.
    assert all(np.array_equal(f.image, whole[f.index].image) for f in frames if f.index < 5)


def test_several_damaged_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    for nth in (0, 7, 8, 19):
        damage(path, nth)
    frames, skipped = read(path)
    assert skipped == 4
    assert [f.index for f in frames] == [t for t in range(20) if t not in (0, 7, 8, 19)]


def test_all_frames_damaged_is_an_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg", frames=3)
    for nth in range(3):
        damage(path, nth)
    with pytest.raises(VideoError, match=r"no frame could be decoded \(3 damaged\)"):
        read(path)


def test_cut_short_video_gives_what_is_there(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    start, size = coded_picture(path, 12)
    path.write_bytes(path.read_bytes()[: start + size // 2])
    frames, skipped = read(path)
    assert [f.index for f in frames] == list(range(12))
    assert skipped == 1


def test_damage_before_a_restart_of_the_clock_hides_no_good_picture_after_it(tmp_path: Path) -> None:
    options = {"bf": "2", "b-adapt": "0", "g": "10", **VLC}
    coded = encode(tmp_path / "a.mp4", grain=60, **options)
    second = remux(coded, tmp_path / "2.ts")
    for nth in (7, 12, 17):
        damage(coded, nth, 40)
    first = remux(coded, tmp_path / "1.ts")
    joined = tmp_path / "a.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    whole, _ = read(second)
    frames, skipped = read(joined)
    assert skipped >= 3
    assert len(frames) + skipped == 40
    assert [f.index for f in frames[-20:]] == list(range(20, 40))
    assert all(np.array_equal(f.image, w.image) for f, w in zip(frames[-20:], whole, strict=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_a_video_cut_short_says_what_is_missing(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = encode(tmp_path / name, frames=90, grain=60, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 55 // 100])
    with open_source(path) as video:
        frames = list(video)
    assert 30 < len(frames) < 60
    assert video.incomplete is not None
    assert re.fullmatch(rf"it ends after \d\.\d\d of 3\.60 s: {len(frames)}( of 90)? frames came", video.incomplete)
    assert video.warnings[-1] == video.incomplete


@pytest.mark.parametrize(("name", "share"), [("a.mp4", 97), ("a.avi", 94)])
def test_an_end_that_lacks_a_few_frames_is_said_where_they_are_listed(tmp_path: Path, name: str, share: int) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = encode(tmp_path / name, frames=40, grain=60, bf="0", container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * share // 100])
    with open_source(path) as video:
        frames = list(video)
    assert 30 < len(frames) < 40
    assert video.incomplete is not None


@pytest.mark.parametrize("start", [0, 5, 20])
@pytest.mark.parametrize("flags", ["", "faststart", "frag_keyframe+empty_moov", "dash"])
def test_cut_and_fragmented_mp4_lack_nothing(tmp_path: Path, start: int, flags: str) -> None:
    """An edit list hides the pictures before 0, and with them what comes before their key picture is not listed."""
    pictures = [picture(t) for t in range(30)]
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": flags} if flags else {}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = t - start, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(tmp_path / "a.mp4") as video:
        assert len(list(video)) >= 30 - start
        assert (video.skipped, video.incomplete, video.warnings) == (0, None, [])


def test_lost_data_makes_pictures_doubtful_until_the_next_key_frame(tmp_path: Path) -> None:
    """A transport stream of which some packets of 188 bytes never arrived."""
    whole = encode(tmp_path / "a.ts", frames=60, grain=60, g="20", bf="0", sc_threshold="0").read_bytes()
    packets = [whole[at : at + 188] for at in range(0, len(whole), 188)]
    first = len(packets) // 2
    (tmp_path / "b.ts").write_bytes(b"".join(packets[:first] + packets[first + 6 :]))
    with open_source(tmp_path / "b.ts") as video:
        frames = list(video)
    assert 5 < video.doubtful <= 20
    assert 60 - 5 <= len(frames) + video.skipped <= 60
    wanted = f"data is missing: {video.doubtful} frames are doubtful, those from there to the next key frame"
    assert video.warnings[-1] == wanted
    with open_source(tmp_path / "a.ts") as video:
        assert len(list(video)) == 60
        assert (video.doubtful, video.warnings) == (0, [])


def test_joined_streams_and_segments_are_not_in_doubt(tmp_path: Path) -> None:
    """Each counts its packets from the start, which looks as if some were lost."""
    parts = [encode(tmp_path / f"{number}.ts", frames=30, **B_PICTURES).read_bytes() for number in range(3)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    for path, count in ((tmp_path / "a.ts", 90), (segments(tmp_path, (0, 1, 2)), 75)):
        with open_source(path) as video:
            assert len(list(video)) == count
            assert (video.skipped, video.doubtful, video.warnings) == (0, 0, [])


def test_later_fragments_alone_lack_nothing(tmp_path: Path) -> None:
    """As a recorder keeps them: the head of a fragmented MP4, and fragments that do not begin at 0."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    data = encode(
        tmp_path / "a.mp4", frames=100, g="25", bf="0", sc_threshold="0", container_options=flags
    ).read_bytes()
    fragments = [at.start() for at in re.finditer(b"moof", data)]
    (tmp_path / "b.mp4").write_bytes(data[: fragments[0] - 4] + data[fragments[2] - 4 :])
    with open_source(tmp_path / "b.mp4") as video:
        assert len(list(video)) == 50
        assert (video.skipped, video.incomplete) == (0, None)


@pytest.mark.parametrize("nth", [3, 7, 11])
def test_av1_counts_no_more_than_there_is(tmp_path: Path, nth: int) -> None:
    """Its decoder works on several packets at once: an error comes with a later one."""
    path = encode(tmp_path / "a.mkv", "libsvtav1", 30, preset="12", **{"svtav1-params": "lp=1"})
    start, size = coded_picture(path, nth)
    data = bytearray(path.read_bytes())
    data[start + size // 2 : start + size] = bytes(size - size // 2)
    path.write_bytes(data)
    frames, skipped = read(path)
    assert len(frames) + skipped <= 30
    with av.open(str(path)) as container:
        whole = 0
        for packet in container.demux(video=0):
            try:
                whole += sum(not picture.is_corrupt for picture in packet.decode())
            except av.FFmpegError:
                continue
    assert len(frames) == whole


def test_damaged_frames_are_said(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", "mjpeg")
    for nth in (3, 7):
        damage(path, nth)
    with open_source(path) as video:
        assert len(list(video)) == 18
        assert video.warnings == ["2 frames are damaged and skipped"]
        assert video.doubtful == 0


def segments(folder: Path, present: tuple[int, ...], *, ended: bool = True) -> Path:
    """A playlist of three segments of a second, of which some are there."""
    for number in present:
        whole = encode(folder / f"{number}.mp4", frames=FPS, bf="0")
        remux(whole, folder / f"{number}.ts", shift=number * FPS)
    listed = "".join(f"#EXTINF:1.0,\n{number}.ts\n" for number in range(3))
    playlist = folder / "a.m3u8"
    end = "#EXT-X-ENDLIST\n" if ended else ""
    playlist.write_text(f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n{listed}{end}")
    return playlist


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ((0, 1, 2), None),
        ((0, 2), "it lacks 1.00 of 3.00 s: 50 frames came"),
        ((0, 1), "it ends after 2.00 of 3.00 s: 50 frames came"),
    ],
)
def test_a_missing_segment_is_said(tmp_path: Path, present: tuple[int, ...], missing: str | None) -> None:
    with open_source(segments(tmp_path, present)) as video:
        assert len(list(video)) == 25 * len(present)
        assert (video.incomplete, video.skipped) == (missing, 0)


def test_an_unfinished_playlist_is_read_from_its_start_to_its_end(tmp_path: Path) -> None:
    with open_source(segments(tmp_path, (0, 1, 2), ended=False)) as video:
        assert len(list(video)) == 75
        assert video.incomplete == "the playlist is unfinished (no #EXT-X-ENDLIST)"
