"""A detector for commands that are called in this process."""

from __future__ import annotations

import pytest

from rdn_engine.detector import Detector
from tests.fakes import fake_detector


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Detector.from_pretrained` gives the fake detector: every proposal is a cat."""
    monkeypatch.setattr(Detector, "from_pretrained", lambda *_, **__: fake_detector()[0])
