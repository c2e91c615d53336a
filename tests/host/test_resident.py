"""What a process grows by with each stream is what the stream says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STREAMS = 4

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rdn_engine.config import Dials, RelationConfig
from rdn_engine.detector import Detector
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.model import HostModel
from rdn_engine.host.relation import FusedRelation
from rdn_engine.host.runtime import HostRuntime
from tests.fakes import image, random_boxes, relation_weights, tiny_config

DIALS = Dials(window=8, num_support=45, num_reference=100, advanced_ratio=0.2)
CONFIG = tiny_config(RelationConfig(dim=256, heads=4), DIALS)
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


objectness = np.linspace(0.9, 0.1, 100, dtype=np.float32)
frame = EncodedFrame(
    random_boxes(rng, 100), objectness, normal(100, 256), normal(100, 256), normal(3, 45, 256), normal(3, 45, 256),
    normal(45, 256),
)


def encode(images, num_reference, num_support, lap):
    for stage in ("backbone", "proposals", "roi_pool", "roi_head"):
        lap(stage)
    return [frame]


relation = FusedRelation(CONFIG, relation_weights(CONFIG), 1)
detector = Detector(HostRuntime(HostModel(CONFIG, encode, relation, 1, sys.argv[1])))


def opened():
    stream = detector.open_stream()
    for t in range(2 * DIALS.window + 4):
        stream.push(image(t % 256))
    return stream


{growth}
"""

COSINE_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rdn_engine.host.cosine import CosineWindow
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings

SETTINGS, FRAMES, PROPOSALS = CosineSettings(dim=128), 31, int(sys.argv[1])
rng = np.random.default_rng(0)
branch = CosineBranch(SETTINGS, {n: 0.1 * rng.standard_normal(s, np.float32) for n, s in SETTINGS.shapes().items()})


def opened():
    window = CosineWindow(branch, frames=FRAMES, proposals=PROPOSALS)
    for t in range(FRAMES + 1):
        features = rng.standard_normal((2, PROPOSALS, SETTINGS.dim), np.float32)
        window.append(*features, *rng.random((2, PROPOSALS), np.float32))
        window.relate(t, window.held[-FRAMES:])
    return window

{growth}
"""

GROWTH = """
def resident():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


first = opened()  # what the kernels work in is there from now on
before = resident()
more = [opened() for _ in range(int(sys.argv[2]))]
print((resident() - before) / len(more), first.nbytes)
"""


@pytest.mark.parametrize("ring", ["float32", "float16"])
def test_resident_memory_of_a_stream_is_its_nbytes(ring: str) -> None:
    """Every row of every array is used, once the window is full."""
    check(SCRIPT, ring)


@pytest.mark.parametrize("proposals", [30, 75])
def test_resident_memory_of_a_cosine_window_is_its_nbytes(proposals: int) -> None:
    check(COSINE_SCRIPT, str(proposals))


def check(script: str, given: str) -> None:
    """Within 5%."""
    command = [sys.executable, "-c", script.replace("{growth}", GROWTH), given, str(STREAMS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resident, nbytes = map(float, done.stdout.split())
    assert resident == pytest.approx(nbytes, rel=0.05), (resident / 2**20, nbytes / 2**20)
