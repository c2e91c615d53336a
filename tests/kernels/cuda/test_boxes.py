"""CUDA kernels around the network against the CPU's, which tests/reference.py defines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdn_engine.config import DetectionConfig, RoIConfig, RPNConfig
from rdn_engine.input_config import InputConfig
from rdn_engine.kernels import cpu
from rdn_engine.kernels.cuda.boxes import Kernels, Resizer
from tests import reference
from tests.cuda_machines import Emulated, Machine, fill

slow = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**32 - 1)


def exact(machine: Machine) -> bool:
    """The emulator has the CPU's expf; a GPU's differs in the last bit."""
    return isinstance(machine, Emulated)


def bfloat16(array: np.ndarray) -> np.ndarray:
    """Rounded down to bfloat16, as uint16."""
    return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def as_float32(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


CASTS = {"float32": lambda a: a.astype(np.float32), "float16": lambda a: a.astype(np.float16), "bfloat16": bfloat16}
PRECISION = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}


# ---- RoI pooling


def pool(
    machine: Machine, feature_map: np.ndarray, boxes: np.ndarray, counts: np.ndarray, config: RoIConfig
) -> np.ndarray:
    channels = feature_map.shape[3]
    filled = config.size**2 * channels
    out = machine.put(np.ones((len(boxes), cpu.pooled_width(config.size, channels)), feature_map.dtype))
    machine.kernels.roi_pool(
        machine.put(feature_map), machine.put(boxes), counts=machine.put(counts), config=config, scale=1 / 16, out=out
    )
    rows = machine.get(out)
    assert (rows[:, filled:] == 1).all()
    return rows[:, :filled].reshape(len(boxes), config.size, config.size, channels)


@pytest.mark.parametrize("kind", list(CASTS))
@pytest.mark.parametrize("pooling", ["align", "max"])
@pytest.mark.parametrize("channels", [24, 3])
def test_roi_pool_equals_the_cpu(machine, pooling, kind, channels):
    rng = np.random.default_rng(channels)
    feature_map = CASTS[kind](rng.standard_normal((2, 9, 13, channels)))
    boxes = rng.uniform(-60, 260, (6, 4)).astype(np.float32)
    boxes[0] = [-1e9, -1e9, 1e9, 1e9]
    boxes[1] = [500, 500, 510, 510]  # off the map
    config = RoIConfig(pooling)
    got = as_float32(pool(machine, feature_map, boxes, np.array([3, 3], np.int32), config))
    rows = cpu.roi_pool(as_float32(feature_map), boxes, np.arange(6) // 3, config=config, scale=1 / 16)
    wanted = reference.cells(rows, 7, channels)
    allowed = 0 if pooling == "max" else PRECISION[kind] * (1 + np.abs(wanted))
    assert (np.abs(got - wanted) <= allowed).all()


def test_roi_pool_gives_zeros_past_an_images_count(machine):
    feature_map = np.random.default_rng(0).standard_normal((2, 5, 5, 8)).astype(np.float16)
    boxes = np.tile(np.array([0, 0, 50, 40], np.float32), (6, 1))
    boxes[4:] = np.nan  # what stands there is not read
    got = pool(machine, feature_map, boxes, np.array([3, 1], np.int32), RoIConfig("align", 3))
    assert got[:4].any(axis=(1, 2, 3)).all()
    assert not got[4:].any()


# ---- resize


INPUT = InputConfig(mean=(103.0, 116.0, 123.0), std=(1.0, 2.0, 3.0))


def resize(machine: Machine, images: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    resizer = Resizer(machine.kernels, INPUT, image_size=images.shape[1:3], size=size)
    workspace = fill(machine, resizer.nbytes(len(images)), np.uint8)
    out = fill(machine, (len(images), 3, *size), CASTS[kind](np.zeros(1)).dtype)
    resizer.prepare(len(images), workspace)
    resizer(machine.put(images), out, workspace)
    return machine.get(out)


@pytest.mark.parametrize("kind", list(CASTS))
@pytest.mark.parametrize(
    ("shape", "size"),
    [((61, 83), (40, 57)), ((20, 31), (45, 70)), ((33, 50), (33, 21)), ((1, 1), (3, 2)), ((400, 3), (7, 3))],
)
def test_resize_equals_the_cpu_to_the_bit(machine, shape, size, kind):
    images = np.random.default_rng(1).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    got = resize(machine, images, size, kind)
    for image, one in zip(images, got, strict=True):
        wanted = cpu.resize_normalize(image, size, INPUT)
        if kind == "float32":
            np.testing.assert_array_equal(one, wanted)
        else:
            np.testing.assert_allclose(as_float32(one), wanted, rtol=2**-10 if kind == "float16" else 2**-7)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "kr", "kb"), [("bt601", 0.299, 0.114), ("bt709", 0.2126, 0.0722), ("bt2020", 0.2627, 0.0593)]
)
def test_nv12_is_the_standards_rgb(machine, matrix, kr, kb, full):
    rng = np.random.default_rng(2)
    lowest, highest = (0, 256) if full else (16, 236)
    luma = rng.integers(lowest, highest, (1, 8, 10), dtype=np.uint8)
    chroma = rng.integers(lowest, 256 if full else 241, (1, 4, 10), dtype=np.uint8)
    got = network_input_of_nv12(machine, luma, chroma, matrix, full)
    y = luma[0] / 255 if full else (luma[0].astype(float) - 16) / 219
    u, v = (np.repeat(np.repeat(chroma[0, :, k::2], 2, 0), 2, 1) for k in (0, 1))
    cb, cr = ((plane.astype(float) - 128) / (127.5 if full else 112) for plane in (u, v))
    red, blue = y + (1 - kr) * cr, y + (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    wanted = np.clip(np.stack([red, green, blue]) * 255, 0, 255)
    assert (np.abs(got - wanted) <= 0.51).all()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "number"), [("bt601", 6), ("bt709", 1), ("bt2020", 9)])
def test_nv12_is_nearly_what_the_cpu_s_decoder_makes_of_it(machine, matrix, number, full):
    """FFmpeg's fast conversion cuts where the standard rounds, up to 3 levels; another matrix is far off."""
    av = pytest.importorskip("av")
    picture = pytest.importorskip("rdn_engine.media.picture")
    luma = np.arange(60, 188, dtype=np.uint8).reshape(8, 16)
    u, v = (np.arange(start, start + 32, dtype=np.uint8).reshape(4, 8) for start in (100, 130))
    frame = av.VideoFrame.from_ndarray(np.concatenate([luma, u.reshape(2, 16), v.reshape(2, 16)]), format="yuv420p")
    frame.colorspace, frame.color_range = number, 2 if full else 1
    chroma = np.stack([u, v], axis=-1).reshape(1, 4, 16)
    got = network_input_of_nv12(machine, luma[None], chroma, matrix, full)
    scaler = av.video.reformatter.VideoReformatter()
    difference = got.transpose(1, 2, 0) - picture.video_rgb(frame, scaler)
    assert np.abs(difference).max() <= 3
    assert 0 <= difference.mean() <= 1.5


def network_input_of_nv12(machine, luma, chroma, matrix, full):
    """[3, H, W]: red, green and blue in 0..255."""
    size = luma.shape[1:3]
    config = InputConfig(channel_order="rgb", mean=(0, 0, 0))
    resizer = Resizer(machine.kernels, config, image_size=size, size=size)
    workspace = fill(machine, resizer.nbytes(1), np.uint8)
    out = fill(machine, (1, 3, *size))
    resizer.prepare(1, workspace)
    planes = machine.put(np.ascontiguousarray(luma)), machine.put(np.ascontiguousarray(chroma))
    resizer(planes[0], out, workspace, chroma=planes[1], matrix=matrix, full_range=full)
    return machine.get(out)[0]


# ---- proposals


def propose(machine: Machine, case: dict[str, Any], most: int) -> list[np.ndarray]:
    batch = len(case["objectness"])
    shapes: list[tuple[tuple[int, ...], Any]] = [((batch, most, 4), np.float32), ((batch, most), np.float32)]
    outputs = [fill(machine, shape, dtype) for shape, dtype in [*shapes, ((batch,), np.int32)]]
    nbytes = machine.kernels.propose_bytes(batch, case["config"])
    arrays = {name: machine.put(value) for name, value in case.items() if isinstance(value, np.ndarray)}
    machine.kernels.propose(
        **(case | arrays),
        boxes=outputs[0],
        scores=outputs[1],
        counts=outputs[2],
        workspace=fill(machine, nbytes, np.uint8),
    )
    return [machine.get(array) for array in outputs]


def proposal_case(seed: int, grid: tuple[int, int], batch: int, top: int, levels: int) -> dict[str, Any]:
    """Scores of `levels` values: many ties where those are few."""
    rng = np.random.default_rng(seed)
    cells = np.array([[-30, -20, 45, 35], [-90, -90, 105, 105], [0, 0, 15, 15]], np.float32)
    count = grid[0] * grid[1] * len(cells)
    return {
        "objectness": (rng.integers(0, levels, (batch, count)) / levels).astype(np.float32),
        "deltas": (rng.standard_normal((batch, count, 4)) / 3).astype(np.float32),
        "grid": grid,
        "cell_anchors": cells,
        "network_size": (16 * grid[0], 16 * grid[1]),
        "config": RPNConfig(pre_nms_top_n=top),
    }


@slow
@given(
    seeds, st.sampled_from([(1, 1), (5, 7), (8, 10)]), st.sampled_from([1, 17, 150, 1000]), st.sampled_from([3, 2**20])
)
def test_proposals_equal_the_cpu(machine, seed, grid, top, levels):
    case = proposal_case(seed, grid, 2, top, levels)
    if seed % 3 == 0:
        case["objectness"][0, ::5] = np.nan
        case["deltas"][1, ::7] = np.nan
    wanted = cpu.propose(**case, max_proposals=60)
    boxes, scores, counts = propose(machine, case, 60)
    np.testing.assert_array_equal(counts, wanted.counts)
    np.testing.assert_array_equal(scores, wanted.objectness)
    np.testing.assert_allclose(boxes, wanted.boxes, rtol=0, atol=0 if exact(machine) else 2e-4)


def test_proposals_of_a_real_size(machine):
    case = proposal_case(5, (20, 32), 1, 1500, 2**24)
    wanted = cpu.propose(**case, max_proposals=300)
    _, scores, counts = propose(machine, case, 300)
    np.testing.assert_array_equal(counts, wanted.counts)
    np.testing.assert_array_equal(scores, wanted.objectness)


def test_proposals_from_half_precision_scores(machine):
    case = proposal_case(3, (5, 7), 1, 100, 2**20)
    halves = {name: case[name].astype(np.float16) for name in ("objectness", "deltas")}
    wanted = cpu.propose(**(case | {name: a.astype(np.float32) for name, a in halves.items()}), max_proposals=40)
    boxes, _, counts = propose(machine, case | halves, 40)
    np.testing.assert_array_equal(counts, wanted.counts)
    np.testing.assert_allclose(boxes, wanted.boxes, rtol=0, atol=2e-4)


# ---- detections


def detect(machine: Machine, case: dict[str, Any], row_counts: list[int] | None = None) -> list[np.ndarray]:
    (batch, rows, classes), config = case["logits"].shape, case["config"]
    most = config.max_detections
    nbytes = machine.kernels.detect_bytes(batch=batch, rows=rows, classes=classes - 1, config=config)
    outputs = [fill(machine, (batch, most, 4)), fill(machine, (batch, most))]
    outputs += [fill(machine, (batch, most), np.int32) for _ in range(2)] + [fill(machine, batch, np.int32)]
    case = case | {"row_counts": np.array([rows] * batch if row_counts is None else row_counts, np.int32)}
    arrays = {name: machine.put(value) for name, value in case.items() if isinstance(value, np.ndarray)}
    names = ("xyxy", "confidence", "class_id", "proposal", "counts")
    machine.kernels.detect(
        **(case | arrays),
        **dict(zip(names, outputs, strict=True)),
        scale=(1.0, 1.0),
        workspace=fill(machine, nbytes, np.uint8),
    )
    return [machine.get(array) for array in outputs]


def detection_case(seed: int, batch: int, rows: int, classes: int, most: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, [150, 100], (batch, rows, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (batch, rows, 2))], -1)
    logits = np.round(rng.standard_normal((batch, rows, classes + 1)) * 2)  # whole numbers: ties
    return {
        "logits": logits.astype(np.float32),
        "deltas": rng.standard_normal((batch, rows, 4 * (classes + 1))).astype(np.float32),
        "boxes": boxes.astype(np.float32),
        "network_size": (128, 192),
        "config": DetectionConfig(max_detections=most),
        "score_threshold": 0.05,
    }


@slow
@given(seeds, st.sampled_from([1, 40, 130]), st.sampled_from([1, 6]), st.sampled_from([5, 300]))
def test_detections_equal_the_cpu(machine, seed, rows, classes, most):
    case = detection_case(seed, 2, rows, classes, most)
    if not exact(machine):  # ties turn on the last bit of expf
        case["logits"] += np.random.default_rng(seed).standard_normal(case["logits"].shape).astype(np.float32)
    if seed % 3 == 0:
        case["logits"][0, 0, 0] = np.nan
    xyxy, confidence, class_id, proposal, counts = detect(machine, case)
    for image in range(2):
        one = {name: case[name][image] for name in ("logits", "deltas", "boxes")}
        wanted = cpu.detect(**(case | one))
        count = counts[image]
        assert count == len(wanted.xyxy)
        np.testing.assert_array_equal(class_id[image, :count], wanted.class_id)
        np.testing.assert_allclose(confidence[image, :count], wanted.confidence, rtol=0 if exact(machine) else 1e-6)
        np.testing.assert_allclose(xyxy[image, :count], wanted.xyxy, rtol=0, atol=0 if exact(machine) else 2e-4)
        assert not xyxy[image, count:].any()
        assert not confidence[image, count:].any()
        np.testing.assert_array_equal(proposal[image, :count], wanted.proposal)


def test_detections_leave_out_rows_past_the_count(machine):
    case = detection_case(4, 2, 50, 3, 100)
    *_, proposal, counts = detect(machine, case, [20, 0])
    one = {name: case[name][0, :20] for name in ("logits", "deltas", "boxes")}
    assert counts.tolist() == [len(cpu.detect(**(case | one)).xyxy), 0]
    assert proposal[0].max() < 20


def test_more_rows_than_one_small_block_sorts(machine):
    case = detection_case(6, 1, 1030, 1, 200)
    *_, counts = detect(machine, case)
    one = {name: case[name][0] for name in ("logits", "deltas", "boxes")}
    assert counts.tolist() == [len(cpu.detect(**(case | one)).xyxy)]


# ---- what does not fit


@pytest.fixture
def kernels() -> Kernels:
    return Emulated(descending=False).kernels


def test_arguments_that_do_not_fit_are_quoted(kernels):
    feature_map, boxes = np.zeros((1, 3, 3, 2), np.float32), np.zeros((2, 4), np.float32)
    good = {"feature_map": feature_map, "boxes": boxes, "out": np.zeros((2, 98), np.float32)}
    good["counts"] = np.array([2], np.int32)
    for change, message in [
        ({"feature_map": feature_map[0]}, r"\[B, H, W, C\], got float32 \[3, 3, 2\]"),
        ({"feature_map": feature_map.astype(np.float64)}, r"float32 or float16 or bfloat16 .* got float64"),
        ({"feature_map": np.zeros((1, 3, 2, 3), np.float32).transpose(0, 1, 3, 2)}, "C-contiguous"),
        ({"boxes": np.zeros((2, 5), np.float32)}, r"boxes \[R, 4\], got float32 \[2, 5\]"),
        ({"out": np.zeros((2, 97), np.float32)}, r"out \[R = 2, 98 or more\], got float32 \[2, 97\]"),
        ({"out": np.zeros((2, 98), np.float16)}, "of the map's type, got float16"),
        ({"boxes": [[0, 0, 1, 1]]}, "on a CUDA device, got list"),
        ({"feature_map": np.zeros((4, 3, 3, 2), np.float32)}, "as many boxes for each of 4 images, got 2"),
        ({"counts": np.zeros(2, np.int32)}, r"counts \[B = 1\], got int32 \[2\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.roi_pool(**(good | change), config=RoIConfig(), scale=1 / 16)
    case = proposal_case(0, (1, 1), 1, 9000, 2)
    with pytest.raises(RuntimeError, match="invalid argument"):
        propose(Emulated(descending=False), case, 60)
    arrays = [np.zeros((1, 5, 4), np.float32), np.zeros((1, 5), np.float32), np.zeros(1, np.int32)]
    outputs = dict(zip(("boxes", "scores", "counts"), arrays, strict=True)) | {"workspace": np.zeros(3, np.uint8)}
    with pytest.raises(ValueError, match=r"workspace of 284 bytes, got uint8 \[3\]"):
        kernels.propose(**(case | {"config": RPNConfig(pre_nms_top_n=10)}), **outputs)
