"""A service over a detector that tests hold in their hands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdn_engine.detector import Detector
from rdn_engine.service.config import service_settings
from rdn_engine.service.service import Service
from tests.serve.doubles import WAIT, watched_detector


@contextmanager
def service(data: dict[str, Any], detector: Detector | None = None) -> Iterator[Service]:
    """A service with these settings; `engines` need not be there."""
    running = Service(service_settings({"engines": "none", **data}), detector or watched_detector()[0])
    try:
        yield running
    finally:
        running.close(drain=False, deadline_s=WAIT)


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    pause = threading.Event()
    for _ in range(int(WAIT / 0.02)):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError(f"it did not come to be within {WAIT:g} s")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
