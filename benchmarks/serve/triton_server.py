"""The Triton Inference Server of the nvidia-pytriton wheel, as processes on this machine, without a container.

The wheel has the server, its libraries and the stub of its Python backend for several Pythons. Nothing else of it is
used, so it is installed without what it asks for (pip install --no-deps nvidia-pytriton). RDN_TRITON_PYTHON names the
Python of another environment that has it and imports rdn_engine; without, it is the Python that runs.

    python benchmarks/serve/triton_server.py REPOSITORY

serves what `rdn-engine export-triton` wrote, until a signal ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from tritonclient.grpc import InferenceServerClient

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.text import read_text
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
MODEL = "rdn"
PATIENCE = 120.0
"""Seconds for the server to be ready, or to end"""
_ASK = """
import importlib.util, json, sys
found = importlib.util.find_spec("pytriton")
print(json.dumps([found and found.submodule_search_locations[0], "%d.%d" % sys.version_info[:2]]))
"""


def _wheel() -> tuple[Path | None, str]:
    """Where the wheel is, and the version of its Python."""
    done = subprocess.run([_python(), "-c", _ASK], capture_output=True, text=True, check=True)
    place, version = json.loads(done.stdout)
    return None if place is None else Path(place), version


def _python() -> str:
    return os.environ.get("RDN_TRITON_PYTHON", sys.executable)


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    place, version = _wheel()
    if place is None:
        return f"{_python()} has no nvidia-pytriton, whose wheel has the server (RDN_TRITON_PYTHON names one that has)"
    if not (place / "tritonserver" / "python_backend_stubs" / version).exists():
        return f"nvidia-pytriton has no Python backend for Python {version}"
    return None


class TritonServer:
    """A server with a model repository, on ports of its own of 127.0.0.1, until the context ends."""

    def __init__(self, repository: Path, *, cores: set[int] | None = None) -> None:
        """Nothing runs yet.

        Args:
            repository: with the model MODEL.
            cores: that the server may run on; None for all.
        """
        self._repository, self._cores = repository, cores
        self._grpc, self._http = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self.url = f"127.0.0.1:{self._grpc}"
        """Of gRPC"""

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start it, and wait until the model is ready.

        Raises:
            RuntimeError: with the end of its log, where it is not ready in time.
        """
        assert self._folder is not None
        place, version = _wheel()
        assert place is not None
        backends = self._backends(place / "tritonserver", version)
        path = f"{Path(_python()).parent}{os.pathsep}{os.environ['PATH']}"
        libraries = place.parent / "nvidia_pytriton.libs"
        environment = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(ROOT)}
        command = [
            str(place / "tritonserver" / "bin" / "tritonserver"), f"--model-repository={self._repository}",
            f"--backend-directory={backends}", "--allow-metrics=false", "--log-verbose=0", "--exit-timeout-secs=5",
            "--http-address=127.0.0.1", f"--http-port={self._http}",
            "--grpc-address=127.0.0.1", f"--grpc-port={self._grpc}",
        ]  # fmt: skip
        with Path(self._folder.name, "log").open("ab") as log:
            # A session of its own: its processes are found, and end, by it.
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        if self._cores is not None:
            os.sched_setaffinity(self._process.pid, self._cores)
        end = time.monotonic() + PATIENCE
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end:
                errors = [line for line in self.log().splitlines() if line.startswith(("E", "error"))]
                raise RuntimeError("\n".join(["the server is not ready:", *errors]))
            time.sleep(0.05)

    def wait(self) -> None:
        """Until the server ends by itself."""
        assert self._process is not None
        self._process.wait()

    def kill(self) -> None:
        """End the server as a machine does that loses its power."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._process = None

    def kill_model(self) -> None:
        """End the model's process, and not the server."""
        for process in self._processes():
            if "triton_python_backend_stub" in read_text(process / "cmdline"):
                os.kill(int(process.name), signal.SIGKILL)

    def log(self) -> str:
        """What it has said."""
        assert self._folder is not None
        return read_text(Path(self._folder.name, "log"))

    def calls(self) -> dict[int, tuple[int, float]]:
        """Frames of a call of the model -> how many such calls there were, and the seconds that they took."""
        with InferenceServerClient(self.url) as client:
            found = client.get_inference_statistics(MODEL).model_stats[0].batch_stats
        return {one.batch_size: (one.compute_infer.count, one.compute_infer.ns / 1e9) for one in found}

    def answers(self) -> tuple[int, float]:
        """Requests that were answered, and the seconds that they spent in the server, those of waiting among them."""
        with InferenceServerClient(self.url) as client:
            success = client.get_inference_statistics(MODEL).model_stats[0].inference_stats.success
        return success.count, success.ns / 1e9

    def megabytes(self) -> float:
        """Resident memory of the server and of its models' processes, MiB, pages of several shared among them."""
        total = 0
        for process in self._processes():
            lines = read_text(process / "smaps_rollup").splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def _processes(self) -> list[Path]:
        """Those of the server's session, below /proc."""
        assert self._process is not None
        every = (folder for folder in Path("/proc").iterdir() if folder.name.isdecimal())
        return [folder for folder in every if _session_of(folder) == self._process.pid]

    def _ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._http}/v2/health/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _backends(self, server: Path, version: str) -> Path:
        """A folder of backends in which the stub of this Python is where the Python backend looks for it."""
        assert self._folder is not None
        backends = Path(self._folder.name, "backends")
        if not backends.exists():
            python = backends / "python"
            python.mkdir(parents=True)
            for one in (server / "backends" / "python").iterdir():
                (python / one.name).symlink_to(one)
            shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", python)
        return backends

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()
        if self._folder is not None:
            self._folder.cleanup()


def _session_of(process: Path) -> int:
    try:
        return int(read_text(process / "stat").rpartition(")")[2].split()[3])
    except OSError:  # it has ended
        return -1


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=given_path, help="of `rdn-engine export-triton`")
    arguments = parser.parse_args(argv)
    if why := missing():
        parser.error(why)
    if not arguments.repository.is_dir():
        parser.error(f"{arguments.repository} is no folder; wanted one that `rdn-engine export-triton` wrote")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), TritonServer(arguments.repository.absolute()) as server:
        print(f"gRPC on {server.url}", flush=True)
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
