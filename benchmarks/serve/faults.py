"""Every fault that a camera has, against real servers: what became of its frames, to the last one.

    python benchmarks/serve/faults.py --output benchmarks/results/faults.json
    python benchmarks/serve/faults.py --faults "server killed" "5% of RTP packets lost"

Cameras are processes of their own (tests/cameras), RTSP ones where Debian's GStreamer is (scripts/test_servers.sh). A
fault whose account is not exact, or after which a stream does not come back, ends this with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.measure import environment_of
from benchmarks.report.serve_tables import fault_table
from benchmarks.serve.observed import PATIENCE, Fate, Observed, total
from benchmarks.serve.processes import full_disk, stopped_under_load
from rdn_engine.config import Dials
from rdn_engine.detector import Detector
from rdn_engine.media.base import SourceOptions
from rdn_engine.media.live import LiveOptions
from rdn_engine.results import Detections
from rdn_engine.serve.scheduler import Scheduler
from tests.cameras.processes import CameraProcess, has_rtsp, http_camera, rtsp_camera
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "p#/?[@s"
RATE = 10
"""Frames a second of each camera"""
FLAPPING_RATE = 4
"""The same of each of the many"""


@dataclass(frozen=True)
class Bench:
    """What every fault is tried with."""

    engines: Path
    """Directory, for processes of their own"""
    scheduler: Scheduler
    dials: Dials
    """One frame ahead: a result comes a frame after its own"""
    seconds: float
    """That a fault lasts, where it lasts"""
    streams: int
    """Of which a quarter flaps"""
    flap_seconds: float
    """For which it does"""

    def watch(self, name: str, address: str, **source: Any) -> Observed:
        """Serve a camera."""
        options = LiveOptions(
            "drop_oldest", room=4, first_delay=0.1, longest_delay=0.5,
            source=SourceOptions(**{"timeout": 10.0} | source),
        )  # fmt: skip
        return Observed(self.scheduler, name, address, options, self.dials)


def killed(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE) as camera:
        seen = bench.watch("killed", camera.address("cam"))
        seen.wait_results(5)
        camera.kill()
        seen.until(lambda now: now.failures > 0)
        camera.restart()
        back = since(seen, later_session(seen))
        return seen.end("server killed and started again", back)


def hung(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE) as camera:
        seen = bench.watch("hung", camera.address("cam"), timeout=3.0)
        seen.wait_results(5)
        camera.stop()
        seen.until(lambda now: now.failures > 0)
        camera.go_on()
        back = since(seen, later_session(seen))
        return seen.end("server hung (SIGSTOP), then went on", back)


def refused(bench: Bench) -> Fate:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    seen = bench.watch("refused", f"http://127.0.0.1:{port}/cam.mjpg")
    seen.until(lambda now: now.failures > 2)
    with http_camera(rate=RATE, port=port):
        return seen.end("connections refused, then taken", since(seen, any_result))


def unauthorised(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE, user="viewer", password=PASSWORD) as camera:
        seen = bench.watch("401", camera.address("cam", "viewer:wrong"))
        seen.until(lambda now: now.failures > 2)
        return seen.end("401: a wrong password", None)


def missing(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE) as camera:
        seen = bench.watch("404", camera.address("none"))
        seen.until(lambda now: now.failures > 2)
        return seen.end("404: no such path", None)


def strange_password(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE, user="viewer", password=PASSWORD) as camera:
        seen = bench.watch("password", camera.address("cam", f"viewer:{quote(PASSWORD, safe='')}"))
        started = time.monotonic()
        fate = seen.end(f"a password with {PASSWORD[1:6]}", seen.wait(any_result) - started)
        assert PASSWORD not in fate.said
        return fate


def spoiled_transport_stream(bench: Bench) -> Fate:
    return spoiled(bench, "cam.ts", "bytes damaged in MPEG-TS")


def spoiled_jpegs(bench: Bench) -> Fate:
    return spoiled(bench, "cam.mjpg", "bytes damaged in motion JPEG")


def spoiled(bench: Bench, path: str, fault: str) -> Fate:
    with http_camera(rate=RATE) as camera:
        seen = bench.watch(path, camera.address(path))
        seen.wait_results(5)
        camera.tell("damage 0.2")
        look_for(bench.seconds, seen)
        seen.until(lambda now: now.damaged + now.doubtful > 0)
        camera.tell("damage 0")
        return seen.end(fault, since(seen, clean))


def rtp_loss(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE, keys=10, bitrate=1000) as camera:
        seen = bench.watch("loss", camera.address("cam"), rtsp_over="udp")
        seen.wait_results(5)
        camera.tell("loss 0.05")
        look_for(bench.seconds, seen)
        seen.until(lambda now: now.lost_packets > 0)
        camera.tell("loss 0")
        return seen.end("5% of RTP packets lost (UDP)", since(seen, clean))


def other_size(bench: Bench) -> Fate:
    with rtsp_camera(rate=RATE, keys=10) as camera:
        seen = bench.watch("size", camera.address("cam"))
        seen.wait_results(5)
        camera.tell("size 192 144")
        return seen.end("another frame size", since(seen, lambda result: result.height == 144))


def clock_back(bench: Bench) -> Fate:
    with http_camera(rate=RATE) as camera:
        seen = bench.watch("clock", camera.address("cam.ts"))
        seen.wait_results(25)
        epoch = seen.look().epochs
        camera.tell("restart")
        return seen.end("clock back to its start", since(seen, lambda result: result.epoch >= epoch))


def reader_stops(bench: Bench) -> Fate:
    with http_camera(rate=RATE) as camera:
        seen = bench.watch("reader", camera.address("cam.mjpg"))
        seen.wait_results(5)
        seen.free.clear()
        seen.until(lambda now: "sink_full" in now.troubles)
        look_for(bench.seconds, seen)
        seen.free.set()
        return seen.end("a consumer that stops reading", since(seen, any_result))


def stopped(bench: Bench) -> Fate:
    return stopped_under_load(bench.engines, 5 * RATE)


def disk(bench: Bench) -> Fate:
    return full_disk(bench.engines, RATE, bench.seconds)


def flapping(bench: Bench) -> tuple[Fate, Fate]:
    """A quarter of the streams lose their server at random; the others share one that stays."""
    count = max(bench.streams // 4, 1)
    with ExitStack() as stack:
        steady = stack.enter_context(http_camera(rate=FLAPPING_RATE))
        flaky = [stack.enter_context(http_camera(rate=FLAPPING_RATE)) for _ in range(count)]
        calm = [bench.watch(f"calm {i}", steady.address("cam.mjpg")) for i in range(bench.streams - count)]
        seen = [bench.watch(f"flapping {i}", camera.address("cam.mjpg")) for i, camera in enumerate(flaky)]
        for one in calm + seen:
            one.wait(any_result)
        backs = flap(seen, flaky, bench.flap_seconds, random.Random(0))
        for one in calm:
            one.wait_results(1)
        others = total(f"the {len(calm)} others of these streams", [one.end("", None) for one in calm], None)
        row = f"{count} of {bench.streams} streams flap at random: those"
        return total(row, [one.end("", None) for one in seen], max(backs)), others


def flap(seen: list[Observed], cameras: list[CameraProcess], seconds: float, chance: random.Random) -> list[float]:
    """Kill servers and start them again; seconds until each stream was back."""
    end = time.monotonic() + seconds
    backs: list[float] = []
    while time.monotonic() < end or not backs:
        place = chance.randrange(len(seen))
        camera, one = cameras[place], seen[place]
        failures = one.look().failures
        camera.kill()
        one.until(lambda now, failures=failures: now.failures > failures)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.5))
        camera.restart()
        backs.append(since(one, later_session(one)))
    return backs


def any_result(result: Detections) -> bool:
    return True


def clean(result: Detections) -> bool:
    return result.capture is not None and not result.capture.doubtful


def later_session(seen: Observed) -> Callable[[Detections], bool]:
    """A result of a connection that is still to be made."""
    sessions = seen.look().sessions
    return lambda result: result.capture is not None and result.capture.session >= sessions


def since(seen: Observed, wanted: Callable[[Detections], bool]) -> float:
    """Seconds from now to a result of a frame that arrives from now on."""
    now = time.monotonic()
    return seen.wait(lambda result: arrival(result) >= now and wanted(result)) - now


def arrival(result: Detections) -> float:
    """When its frame did, `time.monotonic`."""
    assert result.capture is not None
    assert result.capture.clock is not None
    return result.capture.clock


def look_for(seconds: float, seen: Observed) -> None:
    """Let a fault last, and look at the account all the time."""
    end = time.monotonic() + seconds
    seen.until(lambda now: time.monotonic() >= end, seconds + PATIENCE)


FAULTS: dict[str, tuple[Callable[[Bench], Fate | tuple[Fate, ...]], bool]] = {
    "killed": (killed, True),
    "hung": (hung, True),
    "refused": (refused, False),
    "401": (unauthorised, True),
    "404": (missing, True),
    "password": (strange_password, True),
    "mpegts": (spoiled_transport_stream, False),
    "jpeg": (spoiled_jpegs, False),
    "loss": (rtp_loss, True),
    "size": (other_size, True),
    "clock": (clock_back, False),
    "reader": (reader_stops, False),
    "disk": (disk, False),
    "sigterm": (stopped, False),
    "flapping": (flapping, False),
}
"""What each is tried by, and whether it wants the RTSP server"""


def run(engines: Path, names: Sequence[str], seconds: float, streams: int, flap_seconds: float) -> list[Fate]:
    """Try faults, one after another, on one scheduler.

    Args:
        engines: directory of a small model.
        names: of FAULTS.
        seconds: that a fault lasts, where it lasts.
        streams: of which a quarter flaps.
        flap_seconds: for which it does.

    Returns:
        A row for each; those whose server is not here are left out.
    """
    fates: list[Fate] = []
    detector = Detector.from_pretrained(engines, threads=1)
    dials = replace(detector.config.dials, look_ahead=1)
    scheduler = Scheduler(detector)
    try:
        for name in names:
            attempt, wants_rtsp = FAULTS[name]
            if wants_rtsp and not has_rtsp():
                print(f"{name}: no RTSP server here; left out", file=sys.stderr)
                continue
            rows = attempt(Bench(engines, scheduler, dials, seconds, streams, flap_seconds))
            fates += [rows] if isinstance(rows, Fate) else rows
    finally:
        scheduler.close(drain=False, deadline_s=PATIENCE)
    return fates


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=given_path, default=ROOT / "models" / "rdn_tiny" / "engines")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--seconds", type=float, default=10.0, help="that a fault lasts, where it lasts")
    parser.add_argument("--streams", type=int, default=32, help="of which a quarter flaps")
    parser.add_argument("--flap-seconds", type=float, default=60.0, help="for which it does")
    parser.add_argument("--output", type=given_path)
    arguments = parser.parse_args(argv)
    os.environ.update(environment_of(1))
    fates = [asdict(replace(fate, said="")) for fate in run(
        arguments.engines, arguments.faults, arguments.seconds, arguments.streams, arguments.flap_seconds)]  # fmt: skip
    print(fault_table(fates))
    if arguments.output:
        from training.provenance import environment

        result = {"engines": arguments.engines.name, "seconds": arguments.seconds, "rate": RATE,
                  "flapping_rate": FLAPPING_RATE, "flap_seconds": arguments.flap_seconds, "faults": fates,
                  **environment()}  # fmt: skip
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(fate["exact"] for fate in fates) else 1


if __name__ == "__main__":
    sys.exit(main())
