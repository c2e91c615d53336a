"""The command line, called here and as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from rdn_engine.cli.app import app
from rdn_engine.media.writer import VideoWriter

ROOT = Path(__file__).parents[2]

FAKE = (
    "from rdn_engine.detector import Detector; from tests.fakes import fake_detector; "
    "Detector.from_pretrained = lambda *_, **__: fake_detector()[0]; from rdn_engine.cli.app import main; main()"
)
"""`rdn-engine` with a detector that calls every proposal a cat"""

PATIENCE = 60
"""Seconds after which a process that should have ended is taken to hang"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def command(*arguments: object) -> list[str]:
    """What starts `rdn-engine`, with the fake detector, as a process in ROOT."""
    return [sys.executable, "-c", FAKE, *map(str, arguments)]


def start(*arguments: object, stdin: Any = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes], data: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a process that hangs is an error."""
    try:
        out, err = process.communicate(data, timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out.decode(), err.decode()


def shell(script: str, *arguments: object) -> tuple[int, str, str]:
    """`rdn-engine` as "$@" of a shell script, for what is done to its standard streams."""
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *command(*arguments)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return finish(process)


def write_video(path: Path, frames: int = 9) -> Path:
    with VideoWriter(path, fps=10.0) as writer:
        for t in range(frames):
            image = np.full((48, 64, 3), 20 * t % 256, np.uint8)
            image[10:30, 5 + t % 30 : 25 + t % 30] = (250, 30, 30)
            writer.write(image)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
