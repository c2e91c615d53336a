"""A detector whose results tell what was in their window: what a test of mixed windows can fail by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rdn_engine.detector import Detector
from rdn_engine.host.features import RelationOutput, SupportPool
from rdn_engine.host.runtime import HostRuntime
from rdn_engine.kernels.cpu import Float
from tests.fakes import FakeRelation, fake_detector


class _Telling(FakeRelation):
    """The confidence of every box is made of the grey levels in the window, each weighed by its place."""

    def __call__(
        self, boxes: Float, features: Float, query: Float, pool: SupportPool, omega_rows: tuple[int, int] | None = None
    ) -> RelationOutput:
        output = super().__call__(boxes, features, query, pool, omega_rows)
        levels = pool.features[pool.rows][:, 0].astype(np.float64)
        output.logits[:, 1] = (levels * np.sin(1 + np.arange(len(levels)))).sum() / 500
        return output


def telling_detector() -> Detector:
    """A detector of tests.fakes whose confidences are those of its windows' contents."""
    runtime = fake_detector()[0].runtime
    assert isinstance(runtime, HostRuntime)
    return Detector(HostRuntime(replace(runtime.model, relation=_Telling())))
