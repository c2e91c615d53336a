"""`rdn-engine run` as a process whose end is looked at: what it said of each stream, and what is in its files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from benchmarks.serve.observed import PATIENCE, Fate
from tests.cameras.processes import http_camera

ROOT = Path(__file__).resolve().parents[2]
STREAMS = 4


class RunProcess:
    """The command, with cameras as its streams and a file of lines for each, until the context ends."""

    def __init__(self, engines: Path, addresses: dict[str, str], folder: Path) -> None:
        """Start it, and wait until it answers.

        Args:
            engines: directory.
            addresses: of the cameras, by the stream's name.
            folder: for its files; NAME.jsonl are written.
        """
        self.folder = folder
        settings = {
            "engines": str(engines.resolve()),
            "dials": {"look_ahead": 1},
            "http": {"port": 0},
            "outputs": {"lines": {"kind": "jsonl", "path": str(folder / "{stream}.jsonl"), "policy": "wait", "room": 8,
                                  "first_delay": 0.1, "longest_delay": 0.2}},
            "defaults": {"outputs": ["lines"], "results": 8, "room": 4, "first_delay": 0.1, "longest_delay": 0.5},
            "streams": {name: {"source": address} for name, address in addresses.items()},
        }  # fmt: skip
        path = folder / "streams.yaml"
        path.write_text(json.dumps(settings), encoding="utf-8")  # which is YAML too
        self._log = (folder / "log").open("w+b")
        command = [sys.executable, "-m", "rdn_engine", "run", str(path), "--log", "json"]
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=self._log)
        self.address = self._until(lambda: re.search(r"answers at (\S+?)\"", self.log()))[1]

    def streams(self) -> list[dict[str, Any]]:
        """The running streams, as the process says."""
        with urlopen(f"{self.address}streams", timeout=10) as answer:
            listed: list[dict[str, Any]] = json.load(answer)["streams"]
        return listed

    def until_streams(self, true: Callable[[list[dict[str, Any]]], object]) -> None:
        """Wait until something is true of the running streams."""
        self._until(lambda: true(self.streams()))

    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def end(self, fault: str, back_seconds: float | None) -> Fate:
        """Send SIGTERM, and say what became of all streams, by its last word on each and by the lines in the files.

        Args:
            fault: in words.
            back_seconds: as `Fate`.
        """
        last = self.streams()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        said = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        finals = {one["stream"]: one["counts"] for one in said if one.get("event") == "ended"}
        dropped: dict[str, int] = {}
        for final in finals.values():
            for reason, count in final["dropped"].items():
                dropped[reason] = dropped.get(reason, 0) + count
        frames_in, frames_out = (sum(final[name] for final in finals.values()) for name in ("frames_in", "frames_out"))
        exact = code == 0 and set(finals) == {one["name"] for one in last}
        exact &= frames_in == frames_out + sum(dropped.values())
        exact &= all(self._in_order(name) == final["frames_out"] for name, final in finals.items())
        names = ("doubtful", "damaged", "lost_packets", "sessions", "failures", "epochs")
        return Fate(
            fault=fault, frames_in=frames_in, frames_out=frames_out, waiting=0, inside=0, exact=exact,
            dropped={reason: count for reason, count in dropped.items() if count},
            back_seconds=None if back_seconds is None else round(back_seconds, 3),
            **{name: sum(one[name] for one in last) for name in names},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()

    def _in_order(self, name: str) -> int:
        """How many lines the stream has, each of a later frame than the one before; -1 where one is not."""
        lines = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        places = [json.loads(line)["frame_index"] for line in lines]
        return len(places) if places == sorted(set(places)) else -1

    def _until(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (value := found()):
            if time.monotonic() > end or self._process.poll() is not None:
                raise TimeoutError(f"rdn-engine run: {self.log()[-2000:]}")
            time.sleep(0.05)
        return value


def stopped_under_load(engines: Path, rate: float) -> Fate:
    """SIGTERM while all streams have more frames than there is time for: what had arrived comes out."""
    with http_camera(rate=rate) as camera, TemporaryDirectory() as folder:
        addresses = {f"cam{i}": camera.address("cam.mjpg") for i in range(STREAMS)}
        with RunProcess(engines, addresses, Path(folder)) as service:
            service.until_streams(lambda all_: all(one["frames_out"] > 20 for one in all_))
            return service.end(f"SIGTERM under load, {STREAMS} streams", None)


def full_disk(engines: Path, rate: float, seconds: float) -> Fate:
    """The file of a stream cannot be written for a while; the sources drop meanwhile, and no line is lost."""
    with http_camera(rate=rate) as camera, TemporaryDirectory() as folder:
        full = Path(folder) / "cam.jsonl"
        full.symlink_to("/dev/full")
        with RunProcess(engines, {"cam": camera.address("cam.mjpg")}, Path(folder)) as service:
            service.until_streams(lambda all_: all_[0]["outputs"]["lines"]["trouble"] and all_[0]["dropped"]["source"])
            time.sleep(seconds)
            over, before = time.monotonic(), service.streams()[0]["outputs"]["lines"]["written"]
            full.unlink()  # the next try finds a place that has room
            service.until_streams(lambda all_: all_[0]["outputs"]["lines"]["written"] > before)
            back = time.monotonic() - over
            return service.end("a full disk, then room again", back)
