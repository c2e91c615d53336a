"""Detectors become encoders: what each family's graph says, read independently in float64, and what cannot be read."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from export.attach import Attached, Options, _doubt, attach, class_names, main
from export.families import Given
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import AttachError, BundleError
from rdn_engine.verify import verify
from tests import reference
from tests.own_detectors import CLASSES, FAMILIES, SIZE, STRIDES, WIDTH, Maker, cells, columns, labelled, queries, yolox
from training.data.synthetic import write_clip

YOLOX = Options("yolox", CLASSES)


def run(path: Path, names: list[str], image: np.ndarray, extra: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Outputs of an ONNX file, those inside it too."""
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run([*names, *extra], {session.get_inputs()[0].name: image})
    return dict(zip([*names, *extra], found, strict=True))


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (1, 3, *SIZE)).astype(np.float32)


def attached(path: Path, output: Path, options: Options) -> dict[str, np.ndarray]:
    """What the encoder of the directory gives."""
    attach(path, output, options)
    names = [v.name for v in onnx.load(output / "encoder.onnx").graph.output]
    return run(output / "encoder.onnx", names, image())


def levels() -> list[tuple[int, int, int, int]]:
    """Level, row, column and stride of each cell."""
    return [(k, r, c, s) for k, s in enumerate(STRIDES) for r in range(SIZE[0] // s) for c in range(SIZE[1] // s)]


@pytest.mark.parametrize("decoded", [False, True])
def test_yolox_is_decoded_cell_by_cell(tmp_path: Path, decoded: bool) -> None:
    path = yolox(tmp_path / "d.onnx", decoded=decoded)
    found = attached(path, tmp_path / "engines", YOLOX)
    inside = tuple(f"{kind}{k}" for kind in ("cls", "reg") for k in range(3))
    raw = run(yolox(tmp_path / "raw.onnx"), ["output"], image(), inside)
    for i, (k, r, c, stride) in enumerate(levels()):
        dx, dy, lw, lh, objectness, *classes = raw["output"][0, i].astype(np.float64)
        x, y, w, h = (dx + c) * stride, (dy + r) * stride, math.exp(lw) * stride, math.exp(lh) * stride
        box = [x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1]
        np.testing.assert_allclose(found["boxes"][0, i], box, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(found["class_scores"][0, i], np.multiply(classes, objectness), rtol=1e-5)
        row = np.concatenate([raw[f"{kind}{k}"][0, :, r, c] for kind in ("cls", "reg")])
        np.testing.assert_array_equal(found["features"][0, i], row)
    assert found["features"].shape == (1, cells(), 2 * WIDTH)


def test_columns_of_logits_are_read(tmp_path: Path) -> None:
    path, options = columns(tmp_path / "d.onnx"), FAMILIES["columns"][1]
    found = attached(path, tmp_path / "engines", options)
    raw = run(path, ["dets", "logits"], image(), ("map0", "map1", "map2"))
    for i, (k, r, c, _) in enumerate(levels()):
        x, y, w, h = raw["dets"][0, :, i].astype(np.float64)
        np.testing.assert_allclose(
            found["boxes"][0, i], [x - w / 2, y - h / 2, x + w / 2 - 1, y + h / 2 - 1], rtol=1e-5, atol=1e-3
        )
        np.testing.assert_allclose(found["class_scores"][0, i], 1 / (1 + np.exp(-raw["logits"][0, :, i])), atol=1e-6)
        np.testing.assert_array_equal(found["features"][0, i], raw[f"map{k}"][0, :, r, c])


def test_a_score_and_a_label_stand_at_the_place_of_their_class(tmp_path: Path) -> None:
    path, options = labelled(tmp_path / "d.onnx"), FAMILIES["labelled"][1]
    found = attached(path, tmp_path / "engines", options)
    raw = run(path, ["boxes", "scores", "labels_out"], image(), ("map",))
    tall, wide = SIZE
    for i, (x, y, w, h) in enumerate(raw["boxes"][0].astype(np.float64)):
        np.testing.assert_allclose(
            found["boxes"][0, i], [x * wide, y * tall, (x + w) * wide - 1, (y + h) * tall - 1], rtol=1e-5, atol=1e-4
        )
        wanted = [raw["scores"][0, i] if raw["labels_out"][0, i] == c + 1 else 0 for c in range(3)]
        np.testing.assert_array_equal(found["class_scores"][0, i], np.array(wanted, np.float32))
    np.testing.assert_array_equal(found["feature_map"], raw["map"].transpose(0, 2, 3, 1))
    told = Bundle.open(tmp_path / "engines").config.attached
    assert told is not None
    assert (told.map_stride, told.features) == (16, 4 * WIDTH)


def test_queries_are_found_by_the_names_of_their_family(tmp_path: Path) -> None:
    path, options = queries(tmp_path / "d.onnx"), FAMILIES["queries"][1]
    found = attached(path, tmp_path / "engines", options)
    raw = run(path, ["pred_logits", "pred_boxes"], image(), ("decoded",))
    centre, size = raw["pred_boxes"][0, :, :2], raw["pred_boxes"][0, :, 2:]
    corners = np.concatenate([centre - size / 2, centre + size / 2], 1) * np.array([SIZE[1], SIZE[0]] * 2)
    np.testing.assert_allclose(found["boxes"][0], corners - [0, 0, 1, 1], atol=1e-3)
    np.testing.assert_allclose(found["class_scores"], 1 / (1 + np.exp(-raw["pred_logits"])), atol=1e-6)
    np.testing.assert_array_equal(found["features"], raw["decoded"])
    told = Bundle.open(tmp_path / "engines").config
    assert told.attached is not None
    assert told.attached.batched
    assert told.input.fit == "stretch"


def test_a_background_is_taken_off_behind_the_softmax(tmp_path: Path) -> None:
    path = columns(tmp_path / "d.onnx")
    given = replace(FAMILIES["columns"][1].given, activation="softmax", background="first", features=())
    found = attached(path, tmp_path / "engines", Options("generic", CLASSES[:2], given))
    raw = run(path, ["logits"], image())["logits"][0].astype(np.float64).T
    wanted = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    np.testing.assert_allclose(found["class_scores"][0], wanted[:, 1:], atol=1e-6)
    assert "features" not in found


def test_a_detector_alone_finds_what_its_own_scores_and_nms_say(tmp_path: Path) -> None:
    """From the picture to the frame's boxes, by the letterbox and the reference's NMS."""
    path = yolox(tmp_path / "d.onnx")
    attach(path, tmp_path / "engines", YOLOX)
    frame = np.random.default_rng(5).integers(0, 256, (32, 96, 3), np.uint8)
    detector = Detector.from_pretrained(tmp_path / "engines", threads=1)
    (result,) = detector.predict([frame], threshold=0.05)
    network = np.full((1, 3, *SIZE), 114, np.float32)
    network[0, :, :32] = frame[:, :, ::-1].transpose(2, 0, 1)
    raw = run(tmp_path / "engines" / "encoder.onnx", ["boxes", "class_scores"], network)
    boxes, scores = raw["boxes"][0].astype(np.float64), raw["class_scores"][0]
    best, label = scores.max(1), scores.argmax(1)
    rows = []
    for c in range(3):
        order = [i for i in reference.best_first(best) if label[i] == c]
        rows += [order[k] for k in reference.nms(boxes[order], 0.75)[0]]
    rows = sorted(rows, key=lambda i: -best[i])[:100]
    found = []
    for c in range(3):
        order = [i for i in sorted(rows, key=lambda i: -scores[i, c]) if scores[i, c] > 0.05]
        found += [(scores[order[k], c], c, order[k]) for k in reference.nms(boxes[order], 0.5)[0]]
    found = sorted(found, key=lambda one: (-one[0], rows.index(one[2]), one[1]))[:100]
    assert len(found) > 10
    np.testing.assert_allclose(result.confidence, [one[0] for one in found], rtol=1e-5)
    assert result.class_id.tolist() == [one[1] for one in found]
    wanted = np.array([reference.clip(boxes[one[2]], (32, 96)) for one in found])
    np.testing.assert_allclose(result.xyxy, wanted, atol=2e-3)


PLAIN = Given(boxes="dets", scores="logits")
BAD: dict[str, tuple[Any, Options, str]] = {
    "no tensor": (columns, Options("generic", CLASSES, Given(boxes="detz", scores="logits")),
                  r"no tensor 'detz' for the boxes; its outputs are \['dets', 'logits'\], made of \['t.*like this one "
                  r"are \['dets'.*export the detector"),
    "no such rank": (columns, Options("generic", CLASSES, Given(boxes="map0", scores="logits")),
                     r"'map0' is \[1, 16, 8, 12\] for the boxes; wanted \[batch, n, 4\]"),
    "classes": (yolox, Options("yolox", ("cat", "dog")), r"126, 8\].*wanted one of \[batch, 126, 7\].*2 classes"),
    "generic classes": (columns, Options("generic", ("cat", "dog"), PLAIN),
                        r"'logits' is \[1, 3, 126\] for the scores; wanted \[batch, 126, 2\].* 2 classes"),
    "not yolox": (columns, YOLOX, r"outputs \['dets', 'logits'\].*wanted one of \[batch, 126, 8\]"),
    "strides": (yolox, Options("yolox", CLASSES, Given(strides=(8, 16))), r"wanted one of \[batch, 120, 8\]"),
    "size": (yolox, Options("yolox", CLASSES, size=(96, 96)), "takes images of height 64 only; --size says 96"),
    "free size": (queries, Options("rtdetr", CLASSES), "takes any height; wanted --size HEIGHT WIDTH"),
    "half": (lambda path: columns(path, kind=TensorProto.FLOAT16), FAMILIES["columns"][1],
             "cannot be read|as FLOAT16; wanted FLOAT"),
    "feature widths": (columns, Options("generic", CLASSES, replace(PLAIN, features=("map0", "logits"))),
                       "widths 16 at 8 x 12, 126 at 3; wanted the same at every level"),
    "feature cells": (columns, Options("generic", CLASSES, replace(PLAIN, features=("map0",))),
                      r"have 96 cells for 126 boxes"),
    "scores of two": (yolox, Options("yolox", CLASSES, Given(scores="cls0")), "use --family generic"),
    "labels": (labelled, Options("generic", CLASSES, Given(labels="map")), "'map' is .* for the labels"),
    "logits": (columns, Options("generic", CLASSES, PLAIN),
               r"gave class_scores in -.*; wanted scores in 0..1"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "options", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_named(tmp_path: Path, make: Any, options: Options, message: str) -> None:
    path = make(tmp_path / "d.onnx")
    with pytest.raises((AttachError, BundleError), match=message):
        attach(path, tmp_path / "engines", options)
    assert not (tmp_path / "engines").exists()


def test_files_that_are_no_detector_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    m = Maker()
    m.op("Relu", ["images"], "output")
    m.save(tmp_path / "vector.onnx", {"output": [1, 8]}, image=(1, 8))
    old = yolox(tmp_path / "old.onnx", opset=11)
    model = onnx.load(old)
    model.opset_import[0].version = 9
    for node in model.graph.node:  # Slice took attributes then; a graph without one is enough
        assert node.op_type != "Slice"
    onnx.save(model, old)
    for name, message in (("text", "cannot be read"), ("vector", "inputs images .1, 8.; wanted one image"),
                          ("old", "has opset 9; wanted 11 or more"), ("missing", "cannot be read")):  # fmt: skip
        with pytest.raises(AttachError, match=message):
            attach(tmp_path / f"{name}.onnx", tmp_path / "engines", YOLOX)


def test_a_detector_whose_boxes_need_more_than_the_image_is_refused(tmp_path: Path) -> None:
    path = columns(tmp_path / "d.onnx")
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["dets", "scale"], ["scaled"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [1, 4, cells()]))
    onnx.save(model, path)
    options = FAMILIES["columns"][1]
    with pytest.raises(AttachError, match=r"makes its boxes of \['scale'\] too"):
        attach(path, tmp_path / "engines", replace(options, given=replace(options.given, boxes="scaled")))
    attach(path, tmp_path / "engines", options)  # what is not needed is left out, that input too


def test_weights_that_are_inputs_as_in_old_files_are_no_inputs(tmp_path: Path) -> None:
    path = yolox(tmp_path / "d.onnx")
    wanted = attached(path, tmp_path / "wanted", YOLOX)
    model = onnx.load(path)
    model.ir_version = 3
    for one in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)))
    onnx.save(model, path)
    found = attached(path, tmp_path / "engines", YOLOX)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_features_that_cannot_be_found_leave_a_detector_that_links(tmp_path: Path) -> None:
    path = yolox(tmp_path / "d.onnx", named=False)
    done = attach(path, tmp_path / "engines", YOLOX)
    assert done.config.attached is not None
    assert done.config.attached.features == 0
    named = replace(YOLOX, given=Given(features=("cls0", "reg0", "cls1", "reg1", "cls2", "reg2")))
    again = attach(path, tmp_path / "engines", named)
    assert again.config.attached is not None
    assert again.config.attached.features == 2 * WIDTH


def test_class_names_are_coco_or_a_file(tmp_path: Path) -> None:
    coco = class_names("coco")
    assert (len(coco), coco[0], coco[2], coco[-1]) == (80, "person", "car", "toothbrush")
    (tmp_path / "names.txt").write_text("cat\n dog \n\nfox\n")
    assert class_names(str(tmp_path / "names.txt")) == CLASSES
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    with pytest.raises(AttachError, match=r"2 names, \['cat'\] more than once"):
        class_names(str(tmp_path / "twice.txt"))
    with pytest.raises(AttachError, match=r"cannot be read.*wanted coco"):
        class_names(str(tmp_path / "missing.txt"))


def test_the_command_writes_a_directory_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yolox(tmp_path / "d.onnx")
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    command = ["--detector", str(path), "--family", "yolox", "--classes", str(tmp_path / "names.txt"),
               "--output", str(tmp_path / "engines"), "--nms", "0.6", "--mean", "1", "2", "3"]  # fmt: skip
    assert main(command) == 0
    config = Bundle.open(tmp_path / "engines").config
    assert (config.detection.nms_threshold, config.input.mean, config.input.channel_order) == (0.6, (1, 2, 3), "bgr")
    assert main([*command[:-4], "--size", "32", "32"]) == 1
    assert "AttachError: d.onnx takes images of height 64 only" in capsys.readouterr().err


def test_a_directory_that_proves_little_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    write_clip(tmp_path / "clip.mp4", index=7, num_frames=4)
    command = ["--detector", str(yolox(tmp_path / "d.onnx")), "--family", "yolox", "--classes",
               str(tmp_path / "names.txt"), "--output", str(tmp_path / "engines")]  # fmt: skip
    told = {}
    for name, more in {"rendered": [], "given": ["--golden", str(tmp_path / "clip.mp4")]}.items():
        assert main([*command, *more]) == 0
        told[name] = " ".join(capsys.readouterr().err.split())
    assert "note: the golden frames are rendered discs, triangles and stars" in told["rendered"]
    unsure = "above 0.3 in the golden frames: [0, 0, 0, 0]" in told["given"]
    assert ("note: the golden frames show nothing that this detector is sure of" in told["given"]) == unsure
    config = Bundle.open(tmp_path / "engines").config
    assert _doubt(tmp_path, Attached(config, [], [0, 0])) is not None
    assert _doubt(tmp_path, Attached(config, [], [0, 1])) is None


def test_a_detector_of_the_world(tmp_path: Path) -> None:
    """RDN_YOLOX names a YOLOX file trained on COCO, which is not ours to ship."""
    path = os.environ.get("RDN_YOLOX")
    if not path:
        pytest.skip("RDN_YOLOX names no yolox_nano.onnx or the like, trained on COCO")
    done = attach(path, tmp_path / "engines", Options("yolox", class_names("coco")))
    assert done.config.attached is not None
    assert done.config.attached.features > 0
    assert all(row.passed for row in verify(tmp_path / "engines"))
