"""What relations, window and linking add to a detector's frame, beside the same detector alone.

    python benchmarks/frame/own_detector.py [--folder runs/own_detector] [--rounds 15] [--against engines/r101/int8]

The detector has the size of YOLOX-s (benchmarks/frame/yolox.py). Attached, with relations of drawn weights on it, a
steady frame is pushed; before or after it, in turns, two sides get the same frame. `alone`: ONNX Runtime runs the
detector's own file on the frame's network input, so that whatever the stream does beside that graph counts as added:
resizing, choice of proposals, relations, linking, results. `detector`: a stream of the same detector attached alone,
which resizes, runs the graph, chooses and gives out boxes as any program around a detector does, so that what is
added is relations, window and linking. With `--against` two more sides take their turns: the stream of that directory,
with its own dials, and the attached detector in INT8, unless INT8 finds something else than float32: then the reason is
kept instead. Each directory is verified before it is timed. Milliseconds are CPU time of the one thread that works, so
that what else the machine does counts little; stages are wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rdn_engine.backends.onnxruntime  # noqa: F401  first: it keeps ONNX Runtime from writing into the home folder
from benchmarks.frames import make_frame
from benchmarks.measure import environment_of, ratios, summary
from rdn_engine import Detector
from rdn_engine.bundle.directory import Bundle
from rdn_engine.config import Dials
from rdn_engine.errors import PrecisionError
from rdn_engine.frame import Image
from rdn_engine.stream.base import Stream
from training.arguments import given_path

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "own_detector_cost.json"
SIDE = 576
WINDOW = 15
"""T: 31 frames"""
PROPOSALS = (30, 75)
"""K and N"""
DIM = 128
CLASSES = tuple(f"class {i}" for i in range(30))
FRAME = (720, 1280)
DISTINCT = 4
CALIBRATION = 24
"""Frames that INT8 ranges are found on"""


def make(folder: Path) -> None:
    """The detector's file, and the engine directory with relations on it; what is there is kept."""
    # Here, so that the process that is timed has no torch in it.
    import torch

    from benchmarks.frame.models import Rescale, draw_relation, scaled
    from benchmarks.frame.yolox import make_yolox_s
    from export.attach import Options, attach
    from export.attach_relations import attach_relations
    from rdn_engine.backends import load_backend
    from rdn_engine.config import RelationConfig, RoIConfig
    from rdn_engine.host.attached import AttachedEncoder
    from training.checkpoints.files import save_checkpoint
    from training.model.attached import AttachedRDN
    from training.model.inference import detect_video

    folder.mkdir(parents=True, exist_ok=True)
    detector, alone, engines = folder / "yolox_s.onnx", folder / "alone", folder / "relations"
    if not engines.exists():
        if not alone.exists():
            make_yolox_s(detector, SIDE)
            attach(detector, alone, Options("yolox", tuple(f"own {i}" for i in range(80))))
        config = Bundle.open(alone).config
        assert config.attached is not None
        config = replace(
            config,
            class_names=CLASSES,
            attached=replace(config.attached, relations=True),
            relation=RelationConfig(dim=DIM, heads=4),
            roi=RoIConfig(size=config.roi.size, reduce_channels=None),
            dials=Dials(window=WINDOW, num_support=PROPOSALS[-1], num_reference=PROPOSALS[-1]),
        )
        torch.manual_seed(0)
        model = AttachedRDN(config).eval()
        draw_relation(model.relation)
        # Keys, queries and geometry as large as a trained model's: one frame in its own window runs every layer.
        model.encoder = AttachedEncoder(
            config, load_backend("onnxruntime", "cpu", 1).load(Bundle.open(alone).path("encoder")), None, 1
        )
        hooks = [layer.register_forward_hook(Rescale(deviation)) for layer, deviation in scaled(model)]
        detect_video(model, [make_frame(0, FRAME)], replace(config.dials, window=0, look_ahead=None))
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for module in model.relation.rel:
                # Boxes of drawn weights lie nearly concentric, where large weights turn rounding into other results.
                module.geometry.weight.mul_(0.1)
        save_checkpoint(folder / "relations.safetensors", model.state_dict(), config)
        attach_relations(alone, folder / "relations.safetensors", engines)


def make_int8(folder: Path) -> str | None:
    """The directory with relations in INT8, beside the others; why there is none, where it is refused."""
    from export.quantize_attached import quantize_attached

    frames, output = folder / "frames", folder / "int8"
    if not output.exists():
        frames.mkdir(exist_ok=True)
        for t in range(CALIBRATION):
            PIL.Image.fromarray(make_frame(t, FRAME)).save(frames / f"{t:04d}.png")
        try:
            quantize_attached(folder / "relations", frames, output)
        except PrecisionError as error:
            return str(error)
    return None


def stream_of(engines: Path, frames: Sequence[Image], **dials: Any) -> Stream:
    """A stream with a full window."""
    detector = Detector.from_pretrained(engines, threads=1)
    turned = detector.config.dials.turned(dials)
    stream = detector.open_stream(turned)
    for t in range(turned.window + turned.frames_ahead + (turned.link_delay if turned.link != "off" else 0) + 2):
        stream.push(frames[t % DISTINCT])
    return stream


def measure(folder: Path, rounds: int, against: Path | None) -> list[dict[str, Any]]:
    """One row for each number of proposals."""
    import onnxruntime as ort

    from rdn_engine.host import preprocess

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    detector = folder / "yolox_s.onnx"
    session = ort.InferenceSession(detector, options, providers=["CPUExecutionProvider"])
    frames = [make_frame(t, FRAME) for t in range(DISTINCT)]
    given = Bundle.open(folder / "relations").config.input
    inputs = [preprocess.network_input(frame, given, 1)[None] for frame in frames]
    (name,) = (value.name for value in session.get_inputs())
    rows = []
    others = {} if against is None else {"against": stream_of(against, frames)}
    for count in PROPOSALS:
        turned = {"num_support": count, "num_reference": count, "link": "relations"}
        streams = {"stream": stream_of(folder / "relations", frames, **turned)}
        streams["detector"] = stream_of(folder / "alone", frames, **(turned | {"link": "off"}))
        if against is not None and (folder / "int8").exists():
            streams["int8"] = stream_of(folder / "int8", frames, **turned)
        taken: dict[str, list[float]] = {side: [] for side in ("alone", *streams, *others)}
        before, fill = dict(streams["stream"].timings.seconds), 0
        for number in range(rounds):
            t = number % DISTINCT
            work: dict[str, Callable[[], Any]] = {"alone": partial(session.run, None, {name: inputs[t]})}
            work |= {side: partial(stream.push, frames[t]) for side, stream in (streams | others).items()}
            for side in sorted(work, reverse=bool(number % 2)):
                begin = time.process_time()
                found = work[side]()
                taken[side].append(1e3 * (time.process_time() - begin))
                if side == "stream":
                    fill = found[0].pool_fill
        stages = {s: 1e3 * (x - before[s]) / rounds for s, x in streams["stream"].timings.seconds.items()}
        row: dict[str, Any] = {
            "proposals": count,
            "window_frames": fill,
            **{side: summary(ms) for side, ms in taken.items()},
            **{f"stream_over_{s}": summary(ratios(taken["stream"], taken[s])) for s in ("alone", "detector")},
            "stages_ms": {s: round(ms, 3) for s, ms in stages.items()},
            "rounds": {side: [round(ms, 3) for ms in of] for side, of in taken.items()},
        }
        if against is not None:
            compared = [side for side in streams if side != "detector"]
            row |= {f"against_over_{side}": summary(ratios(taken["against"], taken[side])) for side in compared}
        rows.append(row)
        for stream in streams.values():
            stream.close()
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "rounds"}), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=given_path, default=ROOT / "runs" / "own_detector")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument(
        "--against", type=given_path, metavar="ENGINES", help="another engine directory, timed beside it"
    )
    parser.add_argument("--output", type=given_path, default=RESULT)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    against = arguments.against and arguments.against.resolve()
    if arguments.timed:
        os.sched_setaffinity(0, {arguments.core})
        print(json.dumps(measure(folder, arguments.rounds, against)))
        return
    make(folder)
    refused = make_int8(folder) if against else None
    # A process of its own, whose libraries read the number of threads as they start.
    command = [sys.executable, str(Path(__file__).resolve()), "--timed", "--folder", str(folder)]
    command += ["--rounds", str(arguments.rounds), "--core", str(arguments.core)]
    command += ["--against", str(against)] if against else []
    done = subprocess.run(command, env=os.environ | environment_of(1), stdout=subprocess.PIPE, text=True, check=True)
    from training.provenance import environment

    measured: dict[str, Any] = {"side": SIDE, "dim": DIM, "frame": FRAME, "rows": json.loads(done.stdout)}
    if against:
        other = Bundle.open(against).manifest
        measured |= {"against": {"name": other.name, "precision": other.precision}, "int8_refused": refused}
    arguments.output.write_text(json.dumps(environment() | measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
