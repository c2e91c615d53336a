"""The processes that `latency.py` measures in: one for each `Process`, told what to do by pipe while a sweep runs."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.frame.settings import Process
from benchmarks.frame.sides import BaselineSide, HostSide
from benchmarks.measure import environment_of, peak_megabytes


class Worker:
    """A side in a process of its own, on `cores`; commands are answered one at a time."""

    def __init__(self, process: Process, cores: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = dict(os.environ)
        os.environ.update(environment_of(process.threads))  # the allocator and BLAS read it as the process starts
        try:
            self._process = context.Process(target=_serve, args=(process, list(cores), theirs), daemon=True)
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()

    def ask(self, command: str, *arguments: object) -> Any:
        """Raises RuntimeError with the other side's traceback."""
        self._pipe.send((command, arguments))
        try:
            failed, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the measured process ended, exit code {self._process.exitcode}") from None
        if failed:
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(20)


def _side(process: Process) -> Any:
    if process.side == "baseline":
        return BaselineSide(process)
    if process.device == "cpu":
        return HostSide(process)
    # Here, because it wants what only a machine with a GPU has.
    from benchmarks.frame.device_side import DeviceSide

    return DeviceSide(process)


def _serve(process: Process, cores: list[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    side: Any = None
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if side is None:
                side = _side(process)
            answer = peak_megabytes() if command == "peak_megabytes" else getattr(side, command)(*arguments)
            pipe.send((False, answer))
        except Exception:
            pipe.send((True, traceback.format_exc()))
