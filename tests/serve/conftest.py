"""What tests of remote streams share."""

from __future__ import annotations

import pytest

from rdn_engine.serve import client
from tests.serve.remote import Open, by_ray, by_triton


@pytest.fixture(params=[by_ray, by_triton])
def connect(request: pytest.FixtureRequest) -> Open:
    """Opens a stream, by each wire."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails is not sent again."""
    monkeypatch.setattr(client, "_AGAIN_SECONDS", 60.0)
