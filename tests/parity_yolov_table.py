"""The public YOLOV implementation's results against ours: stage by stage, from the frames, and of the bundle.

    python tests/parity_yolov_table.py && python benchmarks/report/report.py

writes benchmarks/results/parity_yolov.json and from it the table of docs/yolov.md; `tests/test_parity_yolov.py` asserts
every row. How they are compared: `tests/parity_yolov.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.attach_yolov import attach_yolov, vid_classes
from rdn_engine import Detector
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.host.features import EncodedFrame
from rdn_engine.host.memory import open_memory
from rdn_engine.host.runtime import Executor, HostRuntime
from tests.parity_yolov import (
    CLIPS,
    INPUT_SIZE,
    NUM_FRAMES,
    ROOT,
    STORED_STEPS,
    Detections,
    Row,
    Rows,
    clip_dials,
    expected,
    in_stored_order,
    load,
    of_stream,
    pictures,
    stored_proposals,
    torch_detections,
    write_checkpoint,
    write_pictures,
)
from training.model.yolov import YOLOV
from training.model.yolov_inference import Proposals, detect_video, joined_rows, propose
from training.provenance import environment

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
            _, output, _ = memory.relate(i, dials, lambda stage: None)
            rows.values("logits", output.logits, stored[f"{clip}/logits"][i, :, :-1])
    runtime = open_bundle(directory, executor)
    memory = open_memory(runtime.model.relation, runtime.config, runtime.config.dials)
    for t, shown in enumerate(of_stream(range(NUM_FRAMES))):
        memory.append(_encoded(shown))
        _, output, _ = memory.relate(t, runtime.config.dials, lambda stage: None)
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
