"""What the public YOLOV implementation computed against ours: stage by stage, from the frames, and of the bundle.

    python tests/parity_yolov.py && python benchmarks/report/report.py

writes benchmarks/results/parity_yolov.json and from it the table of docs/yolov.md; `tests/test_parity_yolov.py` asserts
every row. The data's own text says how far a right float32 implementation was from the stored results: twice that is
allowed, which is TOLERANCES. Rows of a frame are matched by anchor, detections by class and box; one whose score is
within half a percent of the threshold may be missing on either side, and is counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.attach_yolov import attach_yolov, vid_classes
from rdn_engine import Detector
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import CosineConfig, Dials, RDNConfig
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.memory import open_memory
from rdn_engine.host.runtime import Executor, HostRuntime
from tests.data.parity_yolov.make_checkpoint import weights
from training.checkpoints.yolov import load_yolov
from training.model.yolov import YOLOV
from training.model.yolov_inference import FrameResult, Proposals, detect_video, joined_rows, propose
from training.provenance import environment

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "parity_yolov"
INPUT_SIZE = (192, 320)
NUM_FRAMES = 8
STREAM = [0, 1, 2, 3, 4, 5, 6, 7, 6, 5, 4, 3, 2, 1]
"""Frames of the online stream, again and again."""
STORED_STEPS = (*range(8), *range(32, 40))
"""Steps of it that results are stored of."""
CLIPS = ("clip8", "clip5", "clip5_2024", "demo/clip0", "demo/clip1", "demo/clip2")
"""Offline results; those of `2024` leave the objectness out of the box branch."""
UNDECIDED = (0.000995, 0.001005)
"""Scores this near to the threshold of 0.001 may be on either side of it."""

# Stage -> (fed stored proposals, from the frames): twice what the data's text names. Relative to the largest value;
# boxes of detections in pixels, scores absolute.
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "fpn": (0.0, 1.4e-4),
    "features": (6e-6, 4e-4),
    "all_boxes": (2e-6, 6e-5),
    "all_obj": (1e-5, 4.2e-4),
    "all_cls": (1.8e-5, 8e-4),
    "qkv": (1.6e-5, 4e-4),
    "attn": (1.6e-5, 4e-4),
    "sim": (1.6e-5, 4e-4),
    "x_cls": (1.4e-6, 2.8e-4),
    "lin1": (1.4e-6, 2.8e-4),
    "out": (1.4e-6, 2.8e-4),
    "logits": (1.4e-6, 2.8e-4),
    "weights2": (1.6e-5, 4e-4),
    "online x_cls": (1.6e-5, 3e-4),
    "online out": (1.6e-5, 3e-4),
    "online logits": (1.6e-5, 3e-4),
    "local_out": (2.2e-5, 1.6e-4),
    "detection boxes": (8e-4, 0.016),
    "detection scores": (8e-6, 2.4e-4),
    "detections without counterpart": (0.0, 0.0),
    "proposals of the other side alone": (0.0, 0.0),
}
Array = NDArray[Any]
Detections = tuple[Array, Array, Array]
"""Boxes [n, 4] edges in network pixels, scores [n], classes [n]"""


@dataclass(frozen=True)
class Row:
    """One stage against the stored result."""

    what: str
    stage: str
    apart: float
    """Largest difference of all frames"""
    tolerance: float
    unit: str
    """relative, px, absolute or count"""
    compared: int
    """Numbers that were, or detections"""
    near_ties: tuple[str, ...] = ()
    """What a rounding decided the other way, which is no fault"""

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.apart <= self.tolerance


@functools.cache
def expected() -> Mapping[str, Array]:
    """What the public implementation computed."""
    with np.load(DATA / "expected.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_checkpoint(path: Path) -> Path:
    """The generated checkpoint in the public layout, 41 MB."""
    torch.save({"model": weights(DATA / "weights_yolov.npz")}, path)
    return path


def pictures() -> list[NDArray[np.uint8]]:
    """The network inputs as RGB frames, uint8 [192, 320, 3], which a letterbox of their size leaves as they are."""
    return [np.ascontiguousarray(image[::-1].transpose(1, 2, 0)) for image in expected()["input_u8"]]


def write_pictures(folder: Path) -> Path:
    """The same as files, for golden results."""
    folder.mkdir()
    for t, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{t:06d}.png")
    return folder


def load(checkpoint: Path, **cosine: Any) -> tuple[YOLOV, RDNConfig]:
    """The torch model and its configuration, with the public head's order of memory."""
    settings = CosineConfig(**{"memory_order": "shuffled", **cosine})
    loaded = load_yolov(checkpoint, vid_classes(), input_size=INPUT_SIZE, cosine=settings)
    return loaded.model(), loaded.config


def stored_proposals(t: int) -> Proposals:
    """Those of a frame, as the public implementation had them."""
    names = ("prop_idx", "boxes", "obj", "cls_scores", "feat_cls", "feat_reg")
    rows, *rest = (torch.from_numpy(expected()[f"t{t}/{name}"]) for name in names)
    return Proposals(rows.long(), *rest)


def in_stored_order(found: Proposals, t: int) -> tuple[Tensor, int]:
    """Which of our proposals of a frame stands where the stored ones do, and how many of either side the other has not.

    Where sets differ, ours stay in their order.
    """
    stored = torch.from_numpy(expected()[f"t{t}/prop_idx"]).long()
    same = (found.rows[None] == stored[:, None]) if len(found.rows) == len(stored) else torch.zeros(1, 1)
    missing = len(stored) - int(same.sum())
    return (same.float().argmax(1) if not missing else torch.arange(len(found.rows))), missing


def clip_dials(config: RDNConfig, frames: int) -> Dials:
    """A window that reaches from each frame of a clip over all of it."""
    return replace(config.dials, window=frames, look_ahead=frames)


def of_stream(frames: Sequence[Any], steps: int = 40) -> list[Any]:
    """What the online stream shows at each step."""
    return [frames[STREAM[t % len(STREAM)]] for t in range(steps)]


# Comparisons.


def _apart(got: Tensor | Array, wanted: Array) -> float:
    ours = np.asarray(got, np.float64).reshape(wanted.shape)
    return float(np.abs(ours - wanted).max() / np.abs(wanted).max())


class Rows:
    """Comparisons of one kind, the worst of each stage."""

    def __init__(self, what: str, *, fed: bool) -> None:
        self._what, self._column = what, 0 if fed else 1
        self._found: dict[str, Row] = {}

    def add(
        self, stage: str, apart: float, compared: int, unit: str = "relative", near_ties: tuple[str, ...] = ()
    ) -> None:
        """One comparison of a stage."""
        before = self._found.get(stage)
        if before is not None:
            apart = max(apart, before.apart)
            compared, near_ties = compared + before.compared, before.near_ties + near_ties
        tolerance = TOLERANCES[stage][self._column]
        self._found[stage] = Row(self._what, stage, apart, tolerance, unit, compared, near_ties)

    def values(self, stage: str, got: Tensor | Array, wanted: Array) -> None:
        """Values that are stored, in the same order."""
        self.add(stage, _apart(got, wanted), wanted.size)

    def detections(self, got: Detections, key: str) -> None:
        """Detections of a frame."""
        stored = expected()[key]
        wanted = stored[:, :4], stored[:, 4] * stored[:, 5], stored[:, 6].astype(np.int64)
        found = _matched(got, wanted)
        self.add("detection boxes", found.box, len(stored), "px")
        self.add("detection scores", found.score, len(stored), "absolute")
        ties = tuple(f"{key.rpartition('/')[0]}, {tie}" for tie in found.ties)
        self.add("detections without counterpart", found.alone, len(stored), "count", ties)

    def rows(self) -> list[Row]:
        """The worst of each stage."""
        return list(self._found.values())


def _inside(boxes: Array) -> Array:
    """Clipped as our results are: the last pixel included, 1 more for the edge."""
    height, width = INPUT_SIZE
    last = np.array([0, 0, 1, 1])
    clipped: Array = (boxes - last).clip(0, [width - 1, height - 1] * 2) + last
    return clipped


@dataclass(frozen=True)
class _Matched:
    """Detections of a frame against the stored ones."""

    box: float
    """Largest difference of a coordinate"""
    score: float
    alone: int
    """Detections of either side without a counterpart that nothing explains"""
    ties: list[str]
    """Those that a near-tie explains, in words"""


def _matched(got: Detections, wanted: Detections) -> _Matched:
    ours, theirs = (
        np.column_stack([_inside(np.asarray(boxes, np.float64)), np.asarray(labels, np.float64) * 1e4, scores])
        for boxes, scores, labels in (got, wanted)
    )
    far = np.abs(ours[:, None, :5] - theirs[None, :, :5]).max(2)
    pairs = far < 1.0
    assert max(pairs.sum(0).max(initial=0), pairs.sum(1).max(initial=0)) <= 1, "two of a class lie on one place"
    mine, yours = np.nonzero(pairs)
    score = float(np.abs(ours[mine, 5] - theirs[yours, 5]).max(initial=0))
    left = ours[~pairs.any(1)], theirs[~pairs.any(0)]
    alone, ties = 0, []
    for label in np.unique(np.concatenate(left)[:, 4]):
        of_class = [rows[rows[:, 4] == label] for rows in left]
        explained = _explanation(*of_class)
        if explained is None:
            alone += sum(map(len, of_class))
        else:
            ties.append(f"class {label / 1e4:.0f}: {explained}")
    return _Matched(float(far[pairs].max(initial=0)), score, alone, ties)


def _explanation(ours: Array, theirs: Array) -> str | None:
    """The near-tie that leaves detections of one class in one frame without counterpart; None where there is none.

    Two boxes that suppress each other and whose scores no float32 tells apart leave either one, and with it others
    that only the one or the other overlaps.
    """
    both = np.concatenate([ours, theirs])
    if ((both[:, 5] > UNDECIDED[0]) & (both[:, 5] < UNDECIDED[1])).all():
        return f"score {both[0, 5]:.6f} at the threshold"
    if not (len(ours) and len(theirs)):
        return None
    a, b = ours[ours[:, 5].argmax()], theirs[theirs[:, 5].argmax()]
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    shared = np.prod(sides.clip(0))
    union = np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - shared
    if shared / union > 0.5 and abs(a[5] - b[5]) <= TOLERANCES["detection scores"][1]:
        return f"overlapping boxes of scores {a[5]:.6f} and {b[5]:.6f} exchanged, {len(both)} detections"
    return None


def torch_detections(result: FrameResult) -> Detections:
    """What the torch model detects."""
    return result.boxes.numpy(), result.confidence.numpy(), result.class_id.numpy()


# (i) torch, stage by stage.


@torch.no_grad()
def stage_rows(model: YOLOV, config: RDNConfig) -> list[Row]:
    """The torch model fed the stored maps, and the stored proposals."""
    rows, stored = Rows("torch, fed", fed=True), expected()
    maps = [torch.from_numpy(stored[f"t0/fpn{k}"])[None] for k in range(3)]
    found = model.head.anchors(maps)
    for name, part in (("all_boxes", found.boxes), ("all_obj", found.objectness), ("all_cls", found.class_scores)):
        rows.values(name, part[0], stored[f"t0/{name}"])
    kept = torch.from_numpy(stored["t0/prop_idx"]).long()
    for name, part in (("feat_cls", found.features), ("feat_reg", found.features_reg)):
        rows.values("features", part[0, kept], stored[f"t0/{name}"])
    relation_rows(rows, model, config, [stored_proposals(t) for t in range(NUM_FRAMES)])
    return rows.rows()


@torch.no_grad()
def relation_rows(rows: Rows, model: YOLOV, config: RDNConfig, proposals: Sequence[Proposals]) -> None:
    """Everything behind the proposals, offline and online, stored rows in their order."""
    stored = expected()
    for clip in ("clip5", "clip5_2024"):
        model.config = replace(config.cosine, score_in_regression=clip == "clip5")
        related = model.relate(joined_rows([proposals[t] for t in stored[f"{clip}/frames"]]))
        for name in ("qkv_cls", "qkv_reg", "attn_cls", "attn_reg", "x_cls", "lin1", "sim", "weights2", "out"):
            if f"{clip}/{name}" in stored:
                rows.values(name.removesuffix("_reg").replace("qkv_cls", "qkv").replace("attn_cls", "attn"),
                            getattr(related, name), stored[f"{clip}/{name}"])  # fmt: skip
    for clip in CLIPS:
        model.config = replace(config.cosine, score_in_regression=not clip.endswith("2024"))
        frames = stored[f"{clip}/frames"]
        results = detect_video(model, config, [proposals[t] for t in frames], clip_dials(config, len(frames)))
        for i, result in enumerate(results):
            rows.values("logits", result.logits, stored[f"{clip}/logits"][i, :, :-1])
            rows.detections(torch_detections(result), f"{clip}/det{i}")
    model.config = config.cosine
    for t, result in enumerate(detect_video(model, config, of_stream(proposals))):
        if t not in STORED_STEPS:
            continue
        rows.detections(torch_detections(result), f"online/t{t}/det")
        if result.out is not None:
            rows.values("online out", result.out, stored[f"online/t{t}/out"])
            rows.values("online logits", result.logits, stored[f"online/t{t}/logits"][:, :-1])
    # The average alone, of the stored results of the steps before.
    for t in range(3, NUM_FRAMES):
        before = stored[f"online/t{t}/local_frames"]
        past = torch.cat([torch.from_numpy(stored[f"online/t{n}/out"]) for n in before])
        own, earlier = stored_proposals(t), [stored_proposals(n) for n in before]
        out = model.local_average(
            torch.from_numpy(stored[f"online/t{t}/out"]), own.boxes, own.objectness * own.confidence, past,
            torch.cat([p.boxes for p in earlier]), torch.cat([p.objectness * p.confidence for p in earlier]),
        )  # fmt: skip
        rows.values("local_out", out, stored[f"online/t{t}/local_out"])


# (ii) torch, from the frames.


@torch.no_grad()
def torch_rows(model: YOLOV, config: RDNConfig) -> list[Row]:
    """The torch model from the frames alone."""
    rows, stored = Rows("torch, from the frames", fed=False), expected()
    images = torch.from_numpy(stored["input_u8"]).to(next(model.parameters()).dtype)
    for k, found in enumerate(model.backbone(images[:1])):
        rows.values("fpn", found[0], stored[f"t0/fpn{k}"])
    anchors = model.anchors(images)
    proposals = []
    for t, found in enumerate(propose(model, config, images, config.dials.num_support)):
        for name, part in (("boxes", anchors.boxes), ("obj", anchors.objectness), ("cls", anchors.class_scores)):
            rows.values(f"all_{name}", part[t], stored[f"t{t}/all_{name}"])
        order, missing = in_stored_order(found, t)
        moved = (order != torch.arange(len(order))).nonzero().squeeze(1).tolist()
        ties = (f"frame {t}, rows {moved} exchanged",) if moved else ()
        rows.add("proposals of the other side alone", missing, len(order), "count", ties)
        proposals.append(Proposals(*(part[order] for part in vars(found).values())))
        for name, part in (("feat_cls", proposals[t].features), ("feat_reg", proposals[t].features_reg)):
            rows.values("features", part, stored[f"t{t}/{name}"])
    relation_rows(rows, model, config, proposals)
    return [row for row in rows.rows() if row.stage != "local_out"]


# (iii) the exported bundle.


def build(checkpoint: Path, folder: Path) -> Path:
    """The engine directory."""
    attach_yolov(
        checkpoint,
        folder / "engines",
        vid_classes(),
        input_size=INPUT_SIZE,
        golden=write_pictures(folder / "pictures"),
    )
    return folder / "engines"


def open_bundle(directory: Path, executor: Executor, **cosine: Any) -> HostRuntime:
    """A bundle, as if its manifest said otherwise of the attention; with the public head's order of memory."""
    bundle = Bundle.open(directory)
    told = bundle.config
    config = replace(told, cosine=replace(told.cosine, **{"memory_order": "shuffled", **cosine}))
    changed = replace(bundle, manifest=replace(bundle.manifest, config=config))
    backend = load_backend("onnxruntime", "cpu", 1)
    return HostRuntime.load(changed, backend, executor=executor, precision="float32", threads=1)


def bundle_fed_rows(directory: Path, executor: Executor) -> list[Row]:
    """The relation stage of the runtime, fed the stored proposals."""
    rows, stored = Rows(f"bundle, {executor}, fed", fed=True), expected()
    for clip in CLIPS:
        runtime = open_bundle(directory, executor, score_in_regression=not clip.endswith("2024"))
        frames = stored[f"{clip}/frames"]
        dials = clip_dials(runtime.config, len(frames))
        memory = open_memory(runtime.model.relation, runtime.config, dials)
        for t in frames:
            memory.append(_encoded(t))
        for i in range(len(frames)):
            _, output = memory.relate(i, dials, lambda stage: None)
            rows.values("logits", output.logits, stored[f"{clip}/logits"][i, :, :-1])
    runtime = open_bundle(directory, executor)
    memory = open_memory(runtime.model.relation, runtime.config, runtime.config.dials)
    for t, shown in enumerate(of_stream(range(NUM_FRAMES))):
        memory.append(_encoded(shown))
        _, output = memory.relate(t, runtime.config.dials, lambda stage: None)
        if t in STORED_STEPS and t >= 2:
            rows.values("online logits", output.logits, stored[f"online/t{t}/logits"][:, :-1])
    return rows.rows()


def _encoded(t: int) -> EncodedFrame:
    found = stored_proposals(t)
    none, n = np.zeros, len(found.rows)
    return EncodedFrame(
        boxes=found.boxes.numpy() - np.array([0, 0, 1, 1], np.float32),
        objectness=found.objectness.numpy(),
        features=torch.cat([found.features, found.features_reg], 1).numpy(),
        query=none((n, 0), np.float32),
        keys=none((0, n, 0), np.float32),
        values=none((0, n, 0), np.float32),
        refine_query=none((n, 0), np.float32),
        class_scores=found.class_scores.numpy(),
    )


def bundle_rows(directory: Path, executor: Executor) -> list[Row]:
    """The runtime from the frames alone, streams as users open them."""
    rows, shown = Rows(f"bundle, {executor}, from the frames", fed=False), pictures()
    for clip in CLIPS:
        detector = Detector(open_bundle(directory, executor, score_in_regression=not clip.endswith("2024")))
        frames = [shown[t] for t in expected()[f"{clip}/frames"]]
        for i, found in enumerate(_run(detector, frames, clip_dials(detector.config, len(frames)))):
            rows.detections(found, f"{clip}/det{i}")
    detector = Detector(open_bundle(directory, executor))
    for t, found in enumerate(_run(detector, of_stream(shown), detector.config.dials)):
        if t in STORED_STEPS:
            rows.detections(found, f"online/t{t}/det")
    return rows.rows()


def _run(detector: Detector, frames: Sequence[NDArray[np.uint8]], dials: Dials) -> Iterator[Detections]:
    for result in detector.predict(frames, stream=True, dials=dials):
        yield result.xyxy + np.array([0, 0, 1, 1], np.float32), result.confidence, result.class_id


def all_rows(folder: Path) -> list[Row]:
    """Every comparison."""
    checkpoint = write_checkpoint(folder / "yolov_s.pth")
    model, config = load(checkpoint)
    rows = [*stage_rows(model, config), *torch_rows(model, config)]
    directory = build(checkpoint, folder)
    executors: tuple[Executor, ...] = ("fused", "graph")
    for executor in executors:
        rows += [*bundle_fed_rows(directory, executor), *bundle_rows(directory, executor)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "parity_yolov.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = all_rows(Path(folder))
    arguments.output.write_text(json.dumps({"rows": [asdict(row) for row in rows], **environment()}, indent=2) + "\n")
    for row in rows:
        print(
            f"{row.what:32} {row.stage:31} {row.apart:8.2g} of {row.tolerance:8.2g} {row.unit:9} "
            f"{row.compared:9,} {'; '.join(row.near_ties)}{'' if row.passed else ' FAILED'}"
        )


if __name__ == "__main__":
    main()
