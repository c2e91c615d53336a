"""Archives and streams on a real cluster of Ray: what its processes do, and what is left when they die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rdn_engine.config import WHOLE_VIDEO, Dials
from rdn_engine.errors import BackendUnavailable, BundleError, ConfigError, Overloaded
from rdn_engine.results import Detections
from rdn_engine.serve.archive import Archive
from rdn_engine.serve.client import RemoteStream
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.ray.archive import ATTEMPTS, detect_archive
from rdn_engine.serve.ray.client import RayTransport, open_ray_stream
from rdn_engine.serve.ray.cluster import LOCAL, cluster
from rdn_engine.serve.ray.deployment import application
from rdn_engine.serve.recordings import Recording, recordings
from rdn_engine.serve.sessions import Reply, Request, process_of
from tests.serve.ray.processes import ray_processes
from tests.serve.recorded import ENGINES, detector, frames, pictures, told
from training.data.synthetic import write_clip

pytest.importorskip("ray", reason="needs Ray: pip install 'ray[data,serve]'")
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
WAIT = 120.0


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    before = os.environ.get("PYTHONPATH")
    # Actors unpickle what is defined here.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before])])
    with cluster(LOCAL, cpus=2) as connected:
        yield connected


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Six, of which the fourth is none."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(6):
        write_clip(folder / f"{i}.mp4", index=i, num_frames=8 + i)
    (folder / "3.mp4").write_bytes(b"no video")
    found = recordings(str(folder / "*.mp4"))
    assert found is not None
    return found


def archive_in(folder: Path, **dials: object) -> Archive:
    chosen = detector().config.dials.turned({"window": 2, **dials})
    return Archive(ENGINES, folder, chosen, DetectorOptions(threads=1))


def kill(output: Path, times: int, done: threading.Event) -> threading.Thread:
    """Kills so many actors, one after another, each while a video is in work."""

    def watch() -> None:
        killed: set[int] = set()
        while len(killed) < times and not done.wait(0.01):
            processes = [one for one in ray_processes(os.getpid(), "MapWorker") if one not in killed]
            if processes and list(output.glob(".*.part")):
                os.kill(processes[0], signal.SIGKILL)
                killed.add(processes[0])
                # So that the next one is of another process. The one actor that there is then is dead.
                for part in output.glob(".*.part") if len(killed) < times else ():
                    part.unlink(missing_ok=True)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_archive_is_what_one_process_makes_of_it_whoever_dies(
    ray: Any, videos: list[Recording], tmp_path: Path
) -> None:
    alone, archive = archive_in(tmp_path / "alone"), archive_in(tmp_path / "ray")
    wanted = [alone.detect(detector(), video) for video in videos]
    done = threading.Event()
    killer = kill(archive.output, 1, done)
    try:
        found = {one.source: one for one in detect_archive(ray, archive, videos, workers=2)}
    finally:
        done.set()
        killer.join()
    assert len(found) == 6
    for one in wanted:
        other = found[one.source]
        assert (one.error, one.frames) == (other.error, other.frames)
        if one.output is not None:
            assert other.output is not None
            assert Path(one.output).read_bytes() == Path(other.output).read_bytes()
    assert [one.source for one in found.values() if one.error] == [videos[3].path]
    again = list(detect_archive(ray, archive, videos, workers=2))
    assert sorted(one.source for one in again if one.before) == sorted(v.path for v in videos if v != videos[3])
    assert not [path for path in archive.output.iterdir() if path.name.startswith(".")]


def test_a_video_that_ends_every_process_is_given_up(ray: Any, videos: list[Recording], tmp_path: Path) -> None:
    archive = archive_in(tmp_path)
    done = threading.Event()
    killer = kill(tmp_path, ATTEMPTS, done)
    try:
        # The only one, so that every process that dies had this one.
        [outcome] = list(detect_archive(ray, archive, videos[:1], workers=1))
    finally:
        done.set()
        killer.join()
    assert outcome.error is not None
    assert "ended while they detected in it" in outcome.error
    assert archive.done(videos[0]) is None, "the next run tries it again"


def test_segments_are_joined(ray: Any, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    write_clip(path, num_frames=40)
    video = Recording(str(path), path.name)
    alone, archive = (archive_in(tmp_path / name, link="relations") for name in ("alone", "ray"))
    whole = alone.detect(detector(), video)
    [joined] = list(detect_archive(ray, archive, [video], segment_frames=13))
    assert joined.output is not None
    assert whole.output is not None
    assert Path(joined.output).read_bytes() == Path(whole.output).read_bytes()
    assert not (archive.output / ".segments").exists()


def test_what_concerns_the_whole_job_is_said_before_it_begins(
    ray: Any, videos: list[Recording], tmp_path: Path
) -> None:
    archive = archive_in(tmp_path)
    with pytest.raises(BundleError):
        list(detect_archive(ray, replace(archive, engines=tmp_path), videos))
    with pytest.raises(BackendUnavailable, match="tensorrt"):
        list(detect_archive(ray, replace(archive, options=DetectorOptions(backend="tensorrt")), videos))
    with pytest.raises(ConfigError, match="auto"):
        list(detect_archive(ray, replace(archive, options=DetectorOptions(backend="auto")), videos))
    with pytest.raises(ConfigError, match="interval"):
        list(detect_archive(ray, archive_in(tmp_path, interval=2), videos, segment_frames=20))
    with pytest.raises(ConfigError, match="workers"):
        list(detect_archive(ray, archive, videos, workers=0))


def test_the_command_gives_the_same_with_ray_and_without(videos: list[Recording], tmp_path: Path) -> None:
    """In processes of its own, which start and end their cluster."""
    pattern = str(Path(videos[0].path).parent / "*.mp4")
    said = {}
    for name, options in (("alone", ["--threads", "1"]), ("ray", ["--workers", "1", "--ray"])):
        command = [sys.executable, "-m", "rdn_engine", "predict", pattern, "--engines", ENGINES, "--json",
                   "--window", "2", "--output", tmp_path / name, *options]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT, check=False)
        assert done.returncode == 3, done.stderr
        assert "3.mp4" in done.stderr
        said[name] = json.loads(done.stdout)
    assert said["alone"].keys() == said["ray"].keys()
    assert (said["ray"]["done"], said["ray"]["errors"]) == (5, 1)
    for path in (tmp_path / "alone").glob("*.jsonl"):
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes()


def test_a_signal_ends_the_command_and_its_cluster(tmp_path: Path) -> None:
    write_clip(tmp_path / "1.mp4", num_frames=600)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rdn_engine", "predict", tmp_path / "1.mp4", "--engines", ENGINES,
               "--output", out, "--workers", "1", "--ray"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + WAIT
    while not list(out.glob(".*.part")):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    workers = ray_processes(process.pid, "")
    assert workers
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "interrupted by SIGTERM" in said
    while any(Path(f"/proc/{one}").exists() for one in workers):
        assert time.monotonic() < end + WAIT
        time.sleep(0.05)
    assert not list(out.glob("1.mp4.jsonl"))


@pytest.fixture(scope="module")
def app(ray: Any) -> Iterator[str]:
    from ray import serve

    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
    dials = detector().config.dials.turned({"window": 2})
    serve.run(application(ENGINES, replicas=2, room=3, dials=dials), name="rdn", route_prefix=None)
    yield "rdn"
    serve.shutdown()


def play(stream: RemoteStream, first: int, count: int) -> list[Detections]:
    results = []
    for frame in frames(pictures(40))[first : first + count]:
        while True:
            try:
                results += stream.push(replace(frame, source_id=stream.name))
                break
            except Overloaded:
                time.sleep(0.01)
    return results


def test_a_stream_on_a_replica_is_a_local_stream(app: str) -> None:
    stream = open_ray_stream(app, "one")
    results = play(stream, 0, 9) + stream.flush()
    dials = detector().config.dials.turned({"window": 2})
    with detector().open_stream(dials) as local:
        given = [replace(frame, source_id="one") for frame in frames(pictures(40))[:9]]
        wanted = [result for frame in given for result in local.push(frame)] + local.flush()
    assert told(results) == told(wanted)


def test_a_full_replica_refuses_and_keeps_its_windows(app: str) -> None:
    refused: list[str] = []
    streams = [open_ray_stream(app, f"busy {i}") for i in range(16)]

    def push(stream: RemoteStream) -> None:
        for frame in frames(pictures(40))[:12]:
            try:
                stream.push(frame)
            except Overloaded as error:
                refused.append(str(error))

    threads = [threading.Thread(target=push, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for stream in streams:
        stream.flush()
    assert refused
    assert "it takes 3" in refused[0]
    assert all((stream.windows_lost, stream.epoch) == (0, 0) for stream in streams)


def test_streams_of_a_replica_that_dies_see_a_new_epoch(app: str) -> None:
    """The last one: the replica that takes its place moves streams of the other one too, once it is there."""
    replies: dict[str, list[int]] = {f"cam {i}": [] for i in range(6)}

    class Watched(RayTransport):
        def send(self, request: Request, seconds: float) -> Reply:
            reply = super().send(request, seconds)
            replies[str(request.stream)] += [reply.session or 0] * reply.taken
            return reply

    streams = [RemoteStream(Watched(app, name), name, timeout=WAIT) for name in replies]
    results = {stream.name: play(stream, 0, 6) for stream in streams}
    homes = {name: process_of(sessions[-1]) for name, sessions in replies.items()}
    victim = homes[streams[0].name]
    os.kill(victim, signal.SIGKILL)
    for stream in streams:
        results[stream.name] += play(stream, 6, 6)
        results[stream.name] += stream.flush()
    dials = detector().config.dials.turned({"window": 2})
    for stream in streams:
        windows = list(dict.fromkeys(replies[stream.name]))
        assert (len(windows) > 1) >= (homes[stream.name] == victim)
        assert stream.windows_lost == stream.epoch == len(windows) - 1
        assert len(results[stream.name]) + stream.lost == 12
        for epoch, window in enumerate(windows):
            given = [replace(f, source_id=stream.name) for f, its in zip(frames(pictures(40)), replies[stream.name],
                                                                         strict=False) if its == window]  # fmt: skip
            with detector().open_stream(dials) as local:
                wanted = [result for frame in given for result in local.push(frame)] + local.flush()
            came = [replace(result, epoch=0) for result in results[stream.name] if result.epoch == epoch]
            assert told(came) == told(wanted[: len(came)])


def test_what_is_no_cluster_is_an_error() -> None:
    with (
        pytest.raises(ConfigError, match=r"--ray is 'videos/\*\.mp4'; wanted local, auto, HOST:PORT"),
        cluster("videos/*.mp4"),
    ):
        pass
    with pytest.raises(ConfigError, match="replicas"):
        application(ENGINES, replicas=0)
    with pytest.raises(ConfigError, match="the whole video"):
        application(ENGINES, dials=Dials(link="boxes", link_delay=WHOLE_VIDEO))


def test_without_ray_its_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'ray\[data,serve\]'"), cluster(LOCAL):
        pass
    with pytest.raises(BackendUnavailable, match=r"pip install 'ray\[data,serve\]'"):
        application(ENGINES)


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "[::1]:{port}", "127.0.0.1:99999"])
def test_an_address_where_nothing_listens_is_said_before_ray_asks_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "init", lambda *given, **options: pytest.fail("Ray was asked"))
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        given = address.format(port=taken.getsockname()[1])
        with pytest.raises(BackendUnavailable, match="no Ray cluster at"), cluster(given):
            pass


def test_a_cluster_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def late(*given: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(BackendUnavailable, match=r"no Ray cluster at local: .* timed out"), cluster(LOCAL):
        pass
