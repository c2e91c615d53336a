"""Decoding: every picture with its number and time, what is damaged counted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from rdn_engine import Detector
from rdn_engine.errors import VideoError
from rdn_engine.frame import Frame
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.source import open_source
from tests.media.clips import (
    B_PICTURES,
    FPS,
    HEIGHT,
    LOSSY,
    WIDTH,
    encode,
    encode_pictures,
    pack_b_pictures,
    picture,
    read,
    remux,
)
from training.data.synthetic import write_clip

ENGINES = Path(__file__).parents[2] / "models" / "rdn_tiny" / "engines"


@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("mpeg4", "a.mp4"), ("mjpeg", "a.avi")])
def test_video_gives_every_frame_with_index_time_and_colour(tmp_path: Path, codec: str, name: str) -> None:
    path = encode(tmp_path / name, codec)
    with open_source(path) as video:
        assert video.fps == FPS
        assert video.frames_hint == 20
        frames = list(video)
    assert [f.index for f in frames] == list(range(20))
    assert [f.pts for f in frames] == pytest.approx([t / FPS for t in range(20)])
    assert video.skipped == 0
    for t, frame in enumerate(frames):
        assert frame.source_id == str(path)
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - picture(t)).mean() < LOSSY


def test_early_end_of_iteration_closes_the_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", frames=10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with open_source(path) as video:
            for _frame in video:
                break
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def blue(frame: Frame) -> float:
    """which tells the time in `picture`s"""
    return float(frame.image[..., 2].mean())


CONTAINERS = [
    ("a.avi", "libx264", B_PICTURES),
    ("a.avi", "mpeg4", B_PICTURES),
    ("a.avi", "mpeg4", {"bf": "0"}),
    ("a.wmv", "libx264", B_PICTURES),
    ("a.wmv", "mpeg4", B_PICTURES),
    ("a.mp4", "libx264", B_PICTURES),
    ("a.mkv", "libx264", B_PICTURES),
    ("a.ts", "libx264", B_PICTURES),
    ("a.mpg", "mpeg2video", B_PICTURES),
    ("a.flv", "libx264", B_PICTURES),
    ("a.nut", "libx264", B_PICTURES),
    ("a.mxf", "mpeg2video", B_PICTURES),
    ("a.mov", "tiff", {}),
    ("a.m2v", "mpeg2video", B_PICTURES),
    ("a.h264", "libx264", B_PICTURES),
    ("a.hevc", "libx265", {**B_PICTURES, "x265-params": "log-level=none"}),
    ("a.webm", "libvpx-vp9", {"lag-in-frames": "10"}),
    ("a.ivf", "libvpx", {"lag-in-frames": "10", "auto-alt-ref": "1"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS, ids=[f"{n}-{c}" for n, c, _ in CONTAINERS])
def test_every_container_gives_pictures_in_order_one_spacing_apart(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """Packets are in coding order everywhere; raw streams and AVI have no presentation times."""
    with open_source(encode(tmp_path / name, codec, 30, b="4M", **options)) as video:
        frames = list(video)
    assert (video.skipped, video.incomplete, video.warnings) == (0, None, [])
    assert [f.index for f in frames] == list(range(30))
    assert np.diff([blue(f) for f in frames]).min() > 0
    # The coarsest clock here counts milliseconds.
    assert np.diff([f.pts or 0.0 for f in frames]) == pytest.approx([1 / FPS] * 29, abs=1.1e-3)


def test_packed_b_pictures_come_in_order(tmp_path: Path) -> None:
    with open_source(pack_b_pictures(tmp_path / "a.avi")) as video:
        frames = list(video)
    assert (len(frames), video.skipped) == (21, 0)
    assert np.diff([blue(f) for f in frames]).min() > 0
    assert [f.pts for f in frames] == pytest.approx([t / FPS for t in range(21)])


@pytest.mark.parametrize("name", ["a.m2v", "a.h264", "a.hevc"])
def test_a_raw_stream_has_the_rate_of_its_own_headers(tmp_path: Path, name: str) -> None:
    codec = {"a.m2v": "mpeg2video", "a.h264": "libx264", "a.hevc": "libx265"}[name]
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with open_source(encode(tmp_path / name, codec, 10, rate=30, **options)) as video:
        assert video.fps == 30
        assert [f.pts for f in video] == pytest.approx([t / 30 for t in range(10)])
        assert video.warnings == []


def test_a_raw_stream_without_a_rate_says_so(tmp_path: Path) -> None:
    with open_source(encode(tmp_path / "a.mjpeg", "mjpeg", 5)) as video:
        assert [f.pts for f in video] == pytest.approx([t / 25 for t in range(5)])
        assert video.warnings == ["it does not say its frame rate; 25 frames per second are assumed"]


def test_boxes_epochs_and_identities_do_not_depend_on_the_container(tmp_path: Path) -> None:
    """One coding, remuxed: what differs is what each container says of time."""
    write_clip(tmp_path / "clip.mp4", index=7)
    with open_source(tmp_path / "clip.mp4") as clip:
        pictures = [frame.image for frame in clip][:40]
    coded = encode_pictures(tmp_path / "a.ts", pictures, **B_PICTURES)
    detector = Detector.from_pretrained(ENGINES, threads=1)
    dials = replace(detector.config.dials, link="relations")
    found = {}
    for name in ("a.mp4", "a.avi", "a.mkv", "a.ts", "a.wmv"):
        path = coded if name == "a.ts" else remux(coded, tmp_path / name)
        with open_source(path) as video, detector.open_stream(dials) as stream:
            results = [result for frame in video for result in stream.push(frame)] + stream.flush()
            assert stream.epoch == 0, name
        found[name] = [{k: v for k, v in r.to_dict().items() if k not in ("pts", "source_id")} for r in results]
    assert any("tracker_id" in box for line in found["a.mp4"] for box in line["detections"])
    assert all(lines == found["a.mp4"] for lines in found.values())


def test_the_default_stream_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = two_streams(tmp_path / "a.mkv", default=1)
    with open_source(path) as video:
        assert next(iter(video)).image.shape == (HEIGHT, WIDTH, 3)
        assert video.warnings == [
            f"it has 2 video streams: 0 (mpeg4 {WIDTH // 2}x{HEIGHT // 2}), 1 (mpeg4 {WIDTH}x{HEIGHT}); 1 is read"
        ]
    with open_source(path, SourceOptions(video_stream=0)) as video:
        assert next(iter(video)).image.shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert video.warnings == []
    with pytest.raises(VideoError, match=r"no video stream 2; wanted one of 0 \(mpeg4 48x32\), 1 \(mpeg4 96x64\)"):
        open_source(path, SourceOptions(video_stream=2))


def two_streams(path: Path, default: int) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=FPS) for _ in range(2)]
        for number, (stream, scale) in enumerate(zip(streams, (2, 1), strict=True)):
            stream.width, stream.height, stream.pix_fmt = WIDTH // scale, HEIGHT // scale, "yuv420p"
            stream.disposition = Disposition.default if number == default else Disposition(0)
        for t in range(3):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(t, stream.height, stream.width), format="rgb24")
                frame.pts, frame.time_base = t, Fraction(1, FPS)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_times_never_step_back_on_a_clock_that_goes_on(tmp_path: Path) -> None:
    """FFmpeg gives H.264 with B-pictures in MXF wrong times; the pictures come in order."""
    frames, skipped = read(encode(tmp_path / "a.mxf", frames=30, **B_PICTURES))
    assert (len(frames), skipped) == (30, 0)
    assert np.diff([frame.pts or 0.0 for frame in frames]).min() > 0


def test_a_stream_that_begins_later_ends_nothing(tmp_path: Path) -> None:
    """A second file with sound behind one without: the container had one stream when it was opened."""
    encode(tmp_path / "1.ts", frames=30, bf="0")
    with av.open(str(tmp_path / "2.ts"), "w") as container:
        video, sound = (
            container.add_stream("libx264", rate=FPS, options={"bf": "0"}),
            container.add_stream("aac", rate=48000),
        )
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t in range(30):
            frame = av.VideoFrame.from_ndarray(picture(t), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, FPS)
            container.mux(video.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, 1920 * t, Fraction(1, 48000)
            container.mux(sound.encode(silence))
        for stream in (video, sound):
            container.mux(stream.encode())
    (tmp_path / "a.ffconcat").write_text("ffconcat version 1.0\nfile 1.ts\nfile 2.ts\n")
    frames, skipped = read(tmp_path / "a.ffconcat")
    assert (len(frames), skipped) == (60, 0)


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_said_once(tmp_path: Path, transfer: str, name: str) -> None:
    options = {"x265-params": f"log-level=none:transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"}
    with open_source(encode(tmp_path / "a.mp4", "libx265", 5, **options)) as video:
        assert len(list(video)) == 5
        assert [name in warning for warning in video.warnings] == [True]


def comb(t: int) -> np.ndarray:
    """[H, W, 3]: a bright bar that moves 8 pixels between the two fields of a picture, its even and odd rows."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    for field in range(2):
        left = 8 + 8 * (2 * t + field) % (WIDTH - 24)
        image[field::2, left : left + 16] = 220
    return image


def combing(image: np.ndarray) -> float:
    """Mean difference between a row and the two beside it."""
    rows = image[..., 1].astype(float)
    return float(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())


def test_interlaced_video_is_said_and_mended_by_option(tmp_path: Path) -> None:
    path = encode_pictures(
        tmp_path / "a.mp4", [comb(t) for t in range(12)], **{"x264-params": "interlaced=1", "crf": "10"}
    )
    with open_source(path) as video:
        combed = list(video)
        assert ["it is interlaced" in warning for warning in video.warnings] == [True]
    with open_source(path, SourceOptions(deinterlace=True)) as video:
        whole = list(video)
        assert video.warnings == []
    assert [(f.index, f.pts) for f in whole] == [(f.index, f.pts) for f in combed]
    assert np.median([combing(f.image) for f in whole]) < 0.25 * np.median([combing(f.image) for f in combed])


def test_deinterlacing_leaves_other_videos_alone(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", **B_PICTURES)
    plain, _ = read(path)
    with open_source(path, SourceOptions(deinterlace=True)) as video:
        mended = list(video)
    assert [(f.index, f.pts) for f in mended] == [(f.index, f.pts) for f in plain]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(mended, plain, strict=True))


def test_the_shape_of_pixels_is_known(tmp_path: Path) -> None:
    for rotation, wanted in ((0.0, Fraction(16, 11)), (90.0, Fraction(11, 16))):
        with open_source(encode(tmp_path / "a.mp4", frames=2, rotation=rotation, aspect=Fraction(16, 11))) as video:
            assert [frame.pixel_aspect for frame in video] == [1.0, 1.0]
            assert video.pixel_aspect == wanted
            assert type(video.pixel_aspect) is Fraction  # PyAV 19.0.2 has a number of its own
        with open_source(tmp_path / "a.mp4", SourceOptions(square_pixels=True)) as video:
            assert [frame.pixel_aspect for frame in video] == pytest.approx([float(wanted)] * 2)
