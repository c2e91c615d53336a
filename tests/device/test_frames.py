"""How frames enter a device and results leave it: whose memory, in which order, and who waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdn_engine import FrameError, RDNError
from rdn_engine.device.stream import KEPT
from rdn_engine.frame import NV12, Frame
from tests.device_models import (
    AT_ONCE,
    assert_same,
    basic_model,
    device_array,
    frames,
)
from tests.emulated_gpu import Elsewhere, EmulatedGpu


def on_host(gpu: Any, array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.array(array)


def test_frames_of_the_device_give_what_frames_of_the_host_give(gpu: Any) -> None:
    model = basic_model()
    there, here = model.on(gpu).open_stream(), model.on_cpu().open_stream()
    for t, frame in enumerate(frames(4)):
        image = frame if t == 1 else device_array(gpu, frame)
        [got] = there.push(image)
        [wanted] = here.push(frame)
        assert_same(got, wanted)


def test_the_host_may_run_ahead(late: EmulatedGpu) -> None:
    """Nothing has run when the last of these frames is pushed, but for what made room for them."""
    model, video = basic_model(), frames(KEPT)
    stream, here = model.on(late).open_stream(), model.on_cpu().open_stream()
    image, results = np.empty_like(video[0]), []
    for frame in video:
        image[...] = frame
        results += stream.push_device(image)
        image[...] = 0
    for got, frame in zip(results, video, strict=True):
        assert_same(got.cpu(), here.push(frame)[0])


def test_a_frame_is_read_after_what_its_stream_has_and_may_be_overwritten_by_what_it_gets_later(
    late: EmulatedGpu,
) -> None:
    """A decoder that uses one buffer for all frames, on a stream of its own, and never waits."""
    model, video = basic_model(), frames(4)
    decoder, buffer = late.queue(), late.put(np.zeros_like(video[0]))
    stream, kept = model.on(late).open_stream(), []
    for frame in video:
        decoder.copy(buffer, frame)
        kept += stream.push_device(Elsewhere(buffer), stream=decoder.ptr)
    here = model.on_cpu().open_stream()
    for got, frame in zip(kept, video, strict=True):
        assert_same(got.cpu(), here.push(frame)[0])


def test_the_stream_that_an_array_names_is_followed_and_led(late: EmulatedGpu) -> None:
    model, (frame, other) = basic_model(), frames(2)
    decoder, buffer = late.queue(), late.put(np.zeros_like(frame))
    decoder.copy(buffer, frame)
    [result] = model.on(late).open_stream().push_device(Elsewhere(buffer, stream=decoder.ptr))
    decoder.copy(buffer, other)
    assert_same(result.cpu(), model.on_cpu().predict(frame, dials=AT_ONCE))


def test_nv12(gpu: Any) -> None:
    """Its network input is that of the RGB frame, so a grey frame gives the same boxes."""
    model = basic_model()
    grey = np.asarray(Image.fromarray(frames(1)[0]).convert("L"))
    limited = np.round(16 + grey.astype(np.float64) * 219 / 255).astype(np.uint8)
    chroma = np.full((24, 64), 128, np.uint8)
    [got] = model.on(gpu).open_stream().push(NV12(device_array(gpu, limited), device_array(gpu, chroma)))
    rgb = np.clip(np.round((limited.astype(np.float64) - 16) * 255 / 219), 0, 255).astype(np.uint8)
    wanted = model.on_cpu().predict(rgb[:, :, None].repeat(3, 2), dials=AT_ONCE)
    assert len(got) > 0
    assert got.class_id.tolist() == wanted.class_id.tolist()
    np.testing.assert_allclose(got.xyxy, wanted.xyxy, atol=0.5)


def test_what_is_no_frame_is_refused_and_the_stream_goes_on(gpu: Any) -> None:
    model, (frame, other) = basic_model(), frames(2)
    stream = model.on(gpu).open_stream()
    stream.push(frame)
    put = lambda array: device_array(gpu, array)  # noqa: E731
    bad = [
        (frame[:, :, 0], r"a grey image becomes RGB"),
        (put(frame.astype(np.float32)), r"got a device array float32 \[48, 64, 3\]; wanted uint8"),
        (put(frame[:, :, 0].copy()), r"device array uint8 \[48, 64\]; wanted uint8 \[H, W, 3\]"),
        (put(frame[:8].copy()), r"sides of at least 16"),
        (NV12(frame, frame), r"NV12 of ndarray; wanted two device arrays"),
        (
            NV12(put(frame[:, :, 0].copy()), put(frame[:, :, 0].copy())),
            r"got NV12 of uint8 \[48, 64\] and uint8 \[48, 64\]; wanted",
        ),
        (NV12(frame, frame, "bt470"), r"got NV12 with matrix 'bt470' .*; wanted one of bt601, bt709, bt2020"),  # type: ignore[arg-type]
        (NV12(frame, frame, "bt601", 2), r"full_range 2; wanted .* True or False"),  # type: ignore[arg-type]
        ([1, 2], r"got list"),
        (None, r"got NoneType"),
    ]
    for image, message in bad:
        with pytest.raises(FrameError, match=message):
            stream.push(image)
    assert (stream.accepted, stream.rejected) == (1, len(bad))
    here = model.on_cpu().open_stream()
    here.push(frame)
    assert_same(stream.push(other)[0], here.push(other)[0])


def test_rows_may_have_gaps_as_those_of_decoders_have() -> None:
    gpu, model, (frame,) = EmulatedGpu(), basic_model(), frames(1)
    surface = gpu.put(np.full((48, 256), 77, np.uint8))
    surface[:, :192] = frame.reshape(48, 192)
    rows = Elsewhere(surface[:, :192].reshape(48, 64, 3, copy=False), strides=(256, 3, 1))
    wanted = model.on_cpu().predict(frame, dials=AT_ONCE)
    assert_same(model.on(gpu).open_stream().push(rows)[0], wanted)

    luma, chroma = surface[:, :64], gpu.put(np.full((24, 256), 128, np.uint8))
    gaps = NV12(Elsewhere(luma, strides=(256, 1)), Elsewhere(chroma[:, :64], strides=(256, 1)))
    dense = NV12(Elsewhere(gpu.put(luma.copy())), Elsewhere(gpu.put(chroma[:, :64].copy())))
    detector = model.on(gpu)
    [got], [same] = detector.open_stream().push(gaps), detector.open_stream().push(dense)
    assert len(got) > 0
    assert_same(got, same)
    with pytest.raises(FrameError, match="got NV12 with 256 and 64 bytes from row to row"):
        detector.open_stream().push(NV12(gaps.luma, dense.chroma))


def test_other_gaps_are_refused() -> None:
    gpu, model, (frame,) = EmulatedGpu(), basic_model(), frames(1)
    for strides in ((256, 4, 1), (100, 3, 1), (192, 3, -1)):
        with pytest.raises(FrameError, match=r"C-contiguous array, got uint8 .*with strides"):
            model.on(gpu).open_stream().push(Elsewhere(frame, strides=strides))


def test_frames_of_a_video_bring_their_number_and_time(gpu: Any) -> None:
    model, (frame,) = basic_model(), frames(1)
    [got] = model.on(gpu).open_stream(source_id="ignored").push(Frame(frame, index=41, pts=1.5, source_id="a.mp4"))
    assert (got.frame_index, got.pts, got.source_id) == (41, 1.5, "a.mp4")


def test_results_stay_on_the_device_until_later_ones_need_the_room(gpu: Any) -> None:
    model, video = basic_model(), frames(AT_ONCE.window + 4 + KEPT)
    stream = model.on(gpu).open_stream()
    results = [result for frame in video for result in stream.push_device(frame)]
    kept = results[0].kept
    assert kept < len(results)
    for gone in results[: len(results) - kept]:
        with pytest.raises(RDNError, match=f"keeps the last {kept}"):
            gone.cpu()
        with pytest.raises(RDNError, match=f"keeps the last {kept}"):
            gone.on().__enter__()
    for result in results[len(results) - kept :]:
        host = result.cpu()
        with result.on() as arrays:
            count = int(on_host(gpu, arrays.count)[0])
            assert count == len(host) > 0
            np.testing.assert_array_equal(on_host(gpu, arrays.xyxy)[:count], host.xyxy)
            np.testing.assert_array_equal(on_host(gpu, arrays.confidence)[:count], host.confidence)
            np.testing.assert_array_equal(on_host(gpu, arrays.class_id)[:count], host.class_id)
            assert not on_host(gpu, arrays.confidence)[count:].any()


def test_a_reader_sees_its_result_before_the_room_is_used_again(late: EmulatedGpu) -> None:
    model = basic_model()
    stream, reader, read = model.on(late).open_stream(), late.queue(), []
    video = frames(AT_ONCE.window + 5 + KEPT)
    for frame in video:
        [result] = stream.push_device(device_array(late, frame))
        read.append(np.empty((7, 4), np.float32))
        with result.on(reader.ptr) as found:
            reader.copy(read[-1], found.xyxy)
    reader.wait()
    here = model.on_cpu().open_stream()
    for copy, frame in zip(read, video, strict=True):
        [wanted] = here.push(frame)
        np.testing.assert_allclose(copy[: len(wanted)], wanted.xyxy, atol=1e-3)


def test_pixels_that_are_not_square_are_refused_and_counted() -> None:
    (frame,) = frames(1)
    stream = basic_model().on(EmulatedGpu()).open_stream()
    with pytest.raises(FrameError, match=r"pixel_aspect is 1\.5; wanted 1"):
        stream.push(Frame(frame, 0, None, "clip", 1.5))
    assert (stream.rejected, stream.accepted) == (1, 0)
