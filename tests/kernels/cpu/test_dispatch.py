"""Instruction sets and threads of the compiled kernels."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from rdn_engine.config import DetectionConfig, Pooling, RoIConfig, RPNConfig
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import _C, cpu

ROOT = Path(__file__).resolve().parents[3]
INPUT = InputConfig(mean=(1, 2, 3), std=(1, 2, 3))
POOLINGS: tuple[Pooling, ...] = ("align", "max")
NAMES = ("baseline", "avx2", "avx512", "avx512_bf16")


def everything() -> dict[str, np.ndarray]:
    """Every kernel once, on fixed inputs."""
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    resized = cpu.resize_normalize(image, (40, 57), INPUT)
    scores, deltas = rng.random((2, 240)).astype(np.float32), rng.standard_normal((2, 240, 4)).astype(np.float32) / 3
    cells = np.array([[-30, -20, 45, 35], [-90, -90, 105, 105], [0, 0, 15, 15]], np.float32)
    proposals = cpu.propose(
        scores, deltas, grid=(8, 10), network_size=(128, 160), cell_anchors=cells,
        config=RPNConfig(pre_nms_top_n=200), max_proposals=60,
    )  # fmt: skip
    feature_map = rng.standard_normal((2, 8, 10, 37)).astype(np.float32)
    pooled = {
        pooling: cpu.roi_pool(
            feature_map, proposals.boxes[0], np.arange(60) % 2, config=RoIConfig(pooling), scale=1 / 16
        )
        for pooling in POOLINGS
    }
    logits, head = (rng.standard_normal((60, width)).astype(np.float32) for width in (6, 24))
    found = cpu.detect(
        logits, head, proposals.boxes[0], network_size=(128, 160), config=DetectionConfig(), score_threshold=0.05
    )
    return {"resized": resized, **proposals._asdict(), **pooled, **found._asdict()}


def run(isa: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RDN_ISA": isa, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("isa", NAMES)
def test_every_instruction_set_computes_the_same(isa, tmp_path):
    saved = tmp_path / "results.npz"
    done = run(
        isa,
        "import numpy; from tests.kernels.cpu import test_dispatch as here; "
        f"numpy.savez({str(saved)!r}, isa=here._C.isa, **here.everything())",
    )
    if done.returncode != 0:  # a machine without it says so
        assert isa != "baseline"
        assert NAMES.index(isa) > NAMES.index(_C.isa)
        assert f"RDN_ISA is '{isa}', this machine and build have" in done.stderr
        return
    with np.load(saved) as results:
        assert results["isa"] == isa
        for name, here in everything().items():
            # Only RoIAlign fuses its multiply-adds; boxes, keep-lists and pixels are equal to the bit.
            np.testing.assert_allclose(results[name], here, rtol=0, atol=1e-5 if name == "align" else 0, err_msg=name)


def test_an_unknown_instruction_set_is_refused_at_import():
    done = run("sse9", "from rdn_engine.kernels import _C")
    assert done.returncode != 0
    assert "RDN_ISA is 'sse9', this machine and build have" in done.stderr
    assert "baseline" in done.stderr


SMALLER = (1200, 1200)


def large_image() -> np.ndarray:
    """Enough work for threads to be woken (parallel.h)."""
    return np.random.default_rng(7).integers(0, 256, (1800, 2000, 3), dtype=np.uint8)


def test_calls_from_several_threads_share_the_pool():
    image = large_image()
    wanted = cpu.resize_normalize(image, SMALLER, INPUT, threads=1)
    differing: list[str] = []

    def caller() -> None:
        for _ in range(4):
            got = cpu.resize_normalize(image, SMALLER, INPUT, threads=4)
            if not np.array_equal(got, wanted):
                differing.append("resized")

    callers = [threading.Thread(target=caller) for _ in range(5)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert not differing


def test_a_forked_child_starts_with_threads_of_its_own():
    image = large_image()

    def resize() -> np.ndarray:
        return cpu.resize_normalize(image, SMALLER, INPUT, threads=4)

    wanted = resize()
    child = os.fork()
    if child == 0:  # no pytest teardown in the child
        same = False
        try:
            same = np.array_equal(resize(), wanted)
        finally:
            os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
