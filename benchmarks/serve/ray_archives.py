"""Archives on Ray Data against plain processes, and what is left where something dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import summary
from benchmarks.serve.checks import Found
from rdn_engine.detector import Detector
from rdn_engine.serve.archive import Archive, Outcome
from rdn_engine.serve.opening import DetectorOptions
from rdn_engine.serve.ray.archive import detect_archive
from rdn_engine.serve.recordings import Recording, recordings
from tests.serve.ray.processes import ray_processes

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2


def write_videos(folder: Path, count: int, corrupt: int) -> list[Recording]:
    """Clips of moving objects of 40 to 120 frames, which are 2 to 5 seconds; one of them is no video."""
    from training.data.synthetic import write_clip

    folder.mkdir()
    for i in range(count):
        write_clip(folder / f"{i:03}.mp4", index=i % 40, num_frames=40 + i * 7 % 81)
    (folder / f"{corrupt:03}.mp4").write_bytes(b"no video")
    found = recordings(str(folder / "*.mp4"))
    assert found is not None
    return found


def plain_processes(archive: Archive, videos: Sequence[Recording]) -> list[float]:
    """As many plain processes as Ray has actors, each with its share of the list.

    Returns:
        When each video was done, seconds since 1970.
    """
    job = {"engines": str(archive.engines), "output": str(archive.output), "videos": [vars(one) for one in videos]}
    command = [sys.executable, __file__]
    running = [
        subprocess.Popen(
            [*command, f"{worker}/{WORKERS}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        for worker in range(WORKERS)
    ]
    with ThreadPoolExecutor(WORKERS) as pool:
        said = list(pool.map(lambda process: process.communicate(json.dumps(job))[0], running))
    if any(process.returncode for process in running):
        raise SystemExit("a plain process failed")
    return sorted(float(line) for one in said for line in one.split())


def plain(share: str) -> int:
    """One of the plain processes: a loop over its videos."""
    job = json.load(sys.stdin)
    worker, workers = map(int, share.split("/"))
    archive = archive_of(Path(job["engines"]), Path(job["output"]))
    detector = archive.open_detector()
    for video in job["videos"][worker::workers]:
        archive.detect(detector, Recording(**video))
        print(time.time(), flush=True)
    return 0


def archive_of(engines: Path, output: Path, **dials: Any) -> Archive:
    detector = Detector.from_pretrained(engines, threads=1)
    return Archive(engines, output, detector.config.dials.turned(dials), DetectorOptions(threads=1))


@contextmanager
def killed_actor(output: Path, after: int) -> Iterator[list[int]]:
    """Kills the process of an actor once so many videos are done and others are in work."""
    killed: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not killed and not stop.wait(0.02):
            if len(list(output.glob("*.outcome.json"))) >= after and len(list(output.glob(".*.part"))) == WORKERS:
                killed.extend(ray_processes(os.getpid(), "MapWorker")[:1])
                for process in killed:
                    os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def archive_faults(found: Found, ray: Any, engines: Path, folder: Path, videos: Sequence[Recording]) -> None:
    """One corrupt video and a killed actor, against plain processes."""
    whole = archive_of(engines, folder / "plain")
    plain_processes(whole, videos)
    archive = archive_of(engines, folder / "ray")
    with killed_actor(archive.output, len(videos) // 3) as killed:
        # Videos that are in work have a file that is no result yet: both actors are in the middle of one.
        outcomes = list(detect_archive(ray, archive, videos, workers=WORKERS))
    failed = [one for one in outcomes if one.error]
    good = [one for one in outcomes if not one.error]
    count = len(videos)
    found.row(
        f"{count} videos, {WORKERS} actors, one video corrupt, one actor killed",
        f"{count - 1} whole videos, 1 error row, 1 process killed",
        f"{len(good)} whole, {len(failed)} error row, {len(killed)} killed",
        len(good) == count - 1 and len(failed) == len(killed) == 1,
    )
    once = sum(_frames_of(one) == list(range(one.frames)) for one in good)
    frames = sum(one.frames for one in good)
    found.row("frames of the whole videos", "each once, in order", f"{frames} in {once} files", once == len(good))
    equal = sum(_bytes_of(one) == (whole.output / Path(str(one.output)).name).read_bytes() for one in good)
    found.row("files, against a plain process", "equal to the byte", f"{equal} of {len(good)}", equal == len(good))
    again = list(detect_archive(ray, archive, videos, workers=WORKERS))
    before = sum(one.before for one in again)
    found.row("the same job again", "all but the corrupt one skipped", f"{before} skipped", before == len(good))
    left = sorted(path.name for path in archive.output.iterdir() if path.name.startswith("."))
    found.row("files that are no result", "none left", str(left or "none"), not left)


def long_video(found: Found, ray: Any, engines: Path, folder: Path, frames: int) -> None:
    """A long video in segments, links on and off, against the whole."""
    from training.data.synthetic import write_clip

    path = folder / "long.mp4"
    write_clip(path, num_frames=frames)
    video = [Recording(str(path), path.name)]
    for link in ("off", "relations"):
        archives = [archive_of(engines, folder / f"{name}-{link}", link=link) for name in ("whole", "segments")]
        [whole] = [archives[0].detect(archives[0].open_detector(), one) for one in video]
        [joined] = list(detect_archive(ray, archives[1], video, workers=WORKERS, segment_frames=frames // 4))
        equal = whole.error is None and _bytes_of(whole) == _bytes_of(joined)
        found.row(
            f"a video of {frames} frames in 4 segments, link {link}", "equal to the byte to the whole",
            f"{joined.frames} frames, {'equal' if equal else 'DIFFERENT'}", equal and joined.frames == frames,
        )  # fmt: skip


def throughput(found: Found, ray: Any, engines: Path, folder: Path, videos: Sequence[Recording], rounds: int) -> None:
    """Videos a second on Ray and by plain processes, in turns.

    What counts is the time between the first video that is done and the last: both sides have loaded their models then.
    """
    rates: dict[str, list[float]] = {"ray": [], "plain": []}
    for turn in range(rounds):
        for side in ("ray", "plain") if turn % 2 else ("plain", "ray"):
            archive = archive_of(engines, folder / f"{side}-{turn}")
            began = time.time()
            if side == "plain":
                done = plain_processes(archive, videos)
            else:
                done = [time.time() for _ in detect_archive(ray, archive, videos, workers=WORKERS)]
            rates[side].append((len(done) - 1) / (done[-1] - done[0]))
            print(f"{side}: {rates[side][-1]:.2f} videos/s, {time.time() - began:.1f} s in all", flush=True)
            shutil.rmtree(archive.output)
    ratio = statistics.median(a / b for a, b in zip(rates["ray"], rates["plain"], strict=True))
    found.figures["throughput"] = {
        "videos": len(videos), "rounds": rounds, "ray": summary(rates["ray"]), "plain": summary(rates["plain"]),
        "ratio": ratio,
    }  # fmt: skip
    found.row(
        f"videos a second on {WORKERS} actors over {WORKERS} plain processes", "at least 0.95",
        f"{ratio:.3f}, median of {rounds}", ratio >= 0.95,
    )  # fmt: skip


def _bytes_of(outcome: Outcome) -> bytes:
    return Path(str(outcome.output)).read_bytes()


def _frames_of(outcome: Outcome) -> list[int]:
    return [json.loads(line)["frame_index"] for line in _bytes_of(outcome).splitlines()]


if __name__ == "__main__":
    sys.exit(plain(sys.argv[1]))
