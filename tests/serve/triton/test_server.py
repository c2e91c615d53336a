"""Streams behind a real Triton Inference Server, where the wheel that has it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")

from benchmarks.serve import triton_checks
from benchmarks.serve.scale_triton import cameras
from benchmarks.serve.triton_server import MODEL, TritonServer, missing
from rdn_engine.detector import Detector
from rdn_engine.errors import AdmissionRefused, FrameError, ServerUnavailable
from rdn_engine.serve.triton.client import open_triton_stream
from rdn_engine.serve.triton.options import TritonOptions

if _missing := missing():
    pytest.skip(_missing, allow_module_level=True)
pytestmark = pytest.mark.long
MOST = 4
ENGINES = Path(__file__).parents[3] / "models" / "rdn_tiny" / "engines"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.from_pretrained(ENGINES, threads=1)


@pytest.fixture(scope="module")
def videos(detector: Detector) -> triton_checks.Videos:
    return triton_checks.Videos(detector)


@pytest.fixture(scope="module")
def server() -> Iterator[TritonServer]:
    options = TritonOptions(threads=1, max_streams=MOST)
    with triton_checks.serving(ENGINES, options) as one:
        yield one


def test_streams_get_what_local_ones_get_and_their_frames_share_calls(
    server: TritonServer, detector: Detector, videos: triton_checks.Videos
) -> None:
    found = triton_checks.equal(server, detector, videos, MOST, 30)
    assert max(map(int, found["calls"])) > 1, "no call had frames of two streams"


def test_streams_too_many_are_refused_and_get_in_later(server: TritonServer, videos: triton_checks.Videos) -> None:
    found = triton_checks.refused(server, videos, MOST + 3, MOST)
    assert (found["refused"], found["let_in_later"]) == (3, 3)


def test_wrong_frames_are_refused_and_change_nothing(server: TritonServer, videos: triton_checks.Videos) -> None:
    picture = videos.frame(0, 0)
    with open_triton_stream(server.url, MODEL, timeout=30) as stream:
        assert stream.push(picture) == []
        with pytest.raises(FrameError, match="uint8"):
            stream.push(picture.astype(np.float32))  # type: ignore[arg-type]
        [first] = stream.push(picture[:20])  # another size: another epoch
        [second] = stream.flush()
        assert [(r.frame_index, r.epoch, r.pool_fill) for r in (first, second)] == [(0, 0, 1), (1, 1, 1)]
        stream.push(picture)
        [third] = stream.flush()
        assert (third.epoch, stream.epoch, stream.lost) == (2, 2, 0)


def test_a_stream_closed_without_its_results_gives_its_place_back(
    server: TritonServer, videos: triton_checks.Videos
) -> None:
    for _ in range(3 * MOST):
        with open_triton_stream(server.url, MODEL, timeout=30) as stream:
            stream.push(videos.frame(0, 0))


def test_a_server_that_dies_is_seen_by_every_stream(
    server: TritonServer, detector: Detector, videos: triton_checks.Videos
) -> None:
    found = triton_checks.restarted(server, detector, videos, MOST, 40)
    assert (found["changed_epoch"], found["wrong"]) == (MOST, 0)


def test_a_model_whose_process_dies_is_said_and_seen_once_it_is_back(
    server: TritonServer, videos: triton_checks.Videos
) -> None:
    """Triton says all the same that it is ready (findings/triton_model_stays_dead.sh)."""
    with open_triton_stream(server.url, MODEL, timeout=60) as stream:
        stream.push(videos.frame(0, 0))
        server.kill_model()
        stream._timeout = 3.0
        with pytest.raises(ServerUnavailable, match="no answer"):
            stream.push(videos.frame(0, 1))
        server.kill()
        server.start()
        stream._timeout = 60.0
        stream.push(videos.frame(0, 2))
        [result] = stream.flush()
        assert (result.frame_index, result.epoch, result.pool_fill, stream.lost) == (1, 1, 1, 2)


def test_abandoned_streams_are_forgotten_and_a_late_frame_is_seen_to_begin_anew(
    detector: Detector, videos: triton_checks.Videos
) -> None:
    options = TritonOptions(threads=1, max_streams=MOST, idle_seconds=triton_checks.IDLE_SECONDS)
    with triton_checks.serving(ENGINES, options) as server:
        idle = open_triton_stream(server.url, MODEL, name="idle", timeout=30)
        idle.push(videos.frame(0, 0))
        found = triton_checks.abandoned(server, videos, 3 * MOST)
        assert found["refused_while_full"] > 0
        while True:
            try:
                idle.push(videos.frame(0, 1))
                break
            except AdmissionRefused:
                continue
        assert (idle.epoch, idle.lost) == (1, 1)
        [result] = idle.flush()
        assert (result.frame_index, result.epoch, result.pool_fill) == (1, 1, 1)


def test_cameras_with_a_fixed_rate_drop_what_a_server_cannot_do(
    server: TritonServer, videos: triton_checks.Videos
) -> None:
    slow, calls = cameras(server, videos, 2, 4.0, 2.0, 0.0, seed=0)
    assert 0 < slow["answered"] + slow["dropped"] <= 2 * 8
    assert sum(frames * count for frames, (count, _) in calls.spent.items()) >= slow["answered"]
    assert all(seconds > 0 for count, seconds in calls.spent.values() if count)
    assert 0 < calls.transports[0] < 1
    fast, _ = cameras(server, videos, 2, 2000.0, 1.0, 0.0, seed=0)
    assert fast["dropped"] > fast["answered"] > 0


def test_nobody_there_is_said_in_time(videos: triton_checks.Videos) -> None:
    stream = open_triton_stream("127.0.0.1:9", MODEL, timeout=0.5)
    with pytest.raises(ServerUnavailable, match="no answer"):
        stream.push(videos.frame(0, 0))
