"""The cosine attention against what the public implementation computes (YuHengsss/YOLOV fe777cb), stage by stage.

tests/data/parity_yolov holds what the public code made, on a CPU in float32, of a video of 8 frames and of generated
weights. expected.npz: proposals of each frame (`t{0..7}/`), the offline head's stages of a clip, the online head's
steps. attention.npz: YOLOV++'s stages, and weights of both relation stages. The large ones are noise from a Philox
stream keyed by crc32("<seed>/<layer>"), times a stored scale for each output. Tolerances are twice what a
float64 rewrite differs by.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from rdn_engine.host.cosine import CosineWindow
from rdn_engine.host.cosine_branch import CosineBranch, CosineSettings, branch_weights
from rdn_engine.host.cosine_memory import LocalAverage, ShuffledMemory

pytestmark = pytest.mark.isa

DATA = Path(__file__).resolve().parents[1] / "data" / "parity_yolov"
SHOWN = [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1]
"""Frame of the video that step t of the online stream shows, modulo 14."""
ONLINE = CosineSettings(dim=128)
OFFLINE, FED_ONLINE = 1.4e-6, 1.6e-5
"""Of x_cls and out, relative to the largest number of the array."""


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(DATA / "expected.npz") as expected, np.load(DATA / "attention.npz") as attention:
        return {**expected, **attention}


def weights(data: Mapping[str, np.ndarray], model: str) -> dict[str, np.ndarray]:
    found, start = {}, f"weights/{model}/"
    for key, array in data.items():
        kind, _, name = key.removeprefix(start).partition("/")
        if key.startswith(start) and kind == "exact":
            found[name] = array
        elif key.startswith(start) and kind == "scale":
            columns = 512 if "linear2" in name else 256 if "linear1" in name else 128
            layer = zlib.crc32(f"{data[start + 'seed']}/{name.removesuffix('.weight')}".encode())
            noise = np.random.Generator(np.random.Philox(layer)).standard_normal((len(array), columns), np.float32)
            found[name] = noise * array[:, None]
    return found


def branch(data: Mapping[str, np.ndarray], settings: CosineSettings, model: str, *names: str) -> CosineBranch:
    return CosineBranch(settings, branch_weights(weights(data, model), settings, *names))


def proposals(data: Mapping[str, np.ndarray], frame: int) -> tuple[np.ndarray, ...]:
    return tuple(data[f"t{frame}/{name}"] for name in ("feat_cls", "feat_reg", "cls_conf", "obj"))


def differ(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize(("clip", "objectness"), [("clip5", True), ("clip5_2024", False)])
def test_every_frame_of_a_clip_is_the_public_offline_head_s(data, clip, objectness):
    settings = CosineSettings(dim=128, objectness_on_key=objectness)
    memory = CosineWindow(branch(data, settings, "yolov", "head.trans"), frames=5, proposals=30)
    for frame in data[f"{clip}/frames"]:
        memory.append(*proposals(data, frame))
    for t in range(5):
        got, rows = memory.stages(t, range(5)), slice(30 * t, 30 * t + 30)
        assert differ(got.x, data[f"{clip}/x_cls"][rows]) <= OFFLINE
        assert differ(got.weights, data[f"{clip}/weights2"][rows]) <= OFFLINE
        assert ((got.weights > 0) == (data[f"{clip}/weights2"][rows] > 0)).all()
        assert differ(got.out, data[f"{clip}/out"][rows]) <= OFFLINE


def test_every_step_of_a_stream_is_the_public_online_head_s(data):
    memory = CosineWindow(branch(data, ONLINE, "yolov", "head.trans"), frames=60, proposals=30)
    order, local = ShuffledMemory(), LocalAverage(512, proposals=30)
    for t in range(40):
        frame = SHOWN[t % 14]
        memory.append(*proposals(data, frame))
        chosen, step = order(), f"online/t{t}/"
        if f"{step}mem_frames" in data:
            assert (chosen or []) == data[f"{step}mem_frames"].tolist()  # none in the first two
        if chosen is not None:
            got = memory.stages(t, [t, *chosen])
            if f"{step}out" in data:
                assert differ(got.out, data[f"{step}out"]) <= FED_ONLINE
            boxes, confidence, objectness = (data[f"t{frame}/{name}"] for name in ("boxes", "cls_conf", "obj"))
            averaged = local.average(got.out, boxes, confidence, objectness, whole=True)
            if f"{step}weights2" in data:
                assert differ(got.weights, data[f"{step}weights2"]) <= FED_ONLINE
            if f"{step}local_out" in data:
                assert averaged.weights.shape == (30, 30 * len(data[f"{step}local_frames"]))
                assert differ(averaged.weights, data[f"{step}local_weights"]) <= 1.6e-4
                assert differ(averaged.out, data[f"{step}local_out"]) <= 2.2e-5
            local(got.out, boxes, confidence, objectness)
        memory.keep(order.append(t))


def test_what_the_public_code_makes_no_number_keeps_its_own(data):
    """Everything as at step 5, but the first box is moved away."""
    local = LocalAverage(512, proposals=30)
    for t in (2, 3, 4):
        local(data[f"online/t{t}/out"], *(data[f"t{t}/{name}"] for name in ("boxes", "cls_conf", "obj")))
    out, boxes, wanted = data["online/t5/out"], data["online/nan_case/boxes"], data["online/nan_case/local_out"]
    got = local(out, boxes, data["t5/cls_conf"], data["t5/obj"])
    assert np.isnan(wanted[0]).all()
    assert (got[0] == out[0]).all()
    assert differ(got[1:], wanted[1:]) <= 2.2e-5


@pytest.mark.parametrize(
    ("settings", "names", "x", "weights2"),
    [
        (CosineSettings(dim=128, objectness_on_key=False), ("head.agg",), "x_cls", "weights2"),
        (
            CosineSettings(dim=128, objectness_on_key=False, values="reg", value_similarity=0.99),
            ("head.agg_iou", "_obj"),
            "x_reg",
            "weights2_obj",
        ),
    ],
)
def test_frames_of_different_numbers_are_yolovpp_s(data, settings, names, x, weights2):
    memory = CosineWindow(branch(data, settings, "yolovpp", *names), frames=4, proposals=13)
    begin, stage = 0, f"vpp/{names[0].removeprefix('head.')}/"
    for t in range(4):
        props = data[f"vpp/props{t}"]
        rows = slice(begin, begin := begin + len(props))
        memory.append(*(np.ascontiguousarray(a) for a in (
            data["vpp/feat_cls"][rows], data["vpp/feat_reg"][rows], props[:, 5], props[:, 4]
        )))  # fmt: skip
    assert begin == 36
    begin = 0
    for t in range(4):
        got = memory.stages(t, range(4))
        rows = slice(begin, begin := begin + len(got.out))
        for array, name in ((got.x, x), (got.weights, weights2), (got.out, "out")):
            assert differ(array, data[stage + name][rows]) <= OFFLINE
