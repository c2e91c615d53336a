"""What relations, window and linking add to a detector's frame, beside the same detector alone.

    python benchmarks/frame/own_detector.py [--folder runs/own_detector] [--rounds 15] [--against engines/r101/int8]

The detector has the size of YOLOX-s and detects what is rendered (benchmarks/frame/yolox.py); it is trained for some
minutes where the folder has none, and relations are trained on it. Stopped at any point, the same command goes on. A
steady frame is pushed; before or after it, in turns, two sides get the same frame. `alone`: ONNX Runtime runs the
detector's own file on the frame's network input, so that whatever the stream does beside that graph counts as added:
resizing, choice of proposals, relations, linking, results. `detector`: a stream of the same detector attached alone,
which resizes, runs the graph, chooses and gives out boxes as any program around a detector does, so that what is
added is relations, window and linking.

With `--against` more sides take their turns. `against`: the stream of that directory on ONNX Runtime, with its own
dials. `int8`: the attached detector in INT8, on ONNX Runtime; unless INT8 finds something else than float32: then the
reason is kept instead. `..._fastest`: each of the three with backend `auto`, where that takes another backend. What the
directories detect on held-out rendered videos is counted with the backends that are timed. Milliseconds are CPU time of
the one thread that works, so that what else the machine does counts little; stages are wall clock.

INT8 is quantised and judged for the instruction set of this process: its products may saturate where there is no VNNI.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import rdn_engine.backends.onnxruntime  # noqa: F401  first: it keeps ONNX Runtime from writing into the home folder
from benchmarks.measure import environment_of, ratios, summary
from rdn_engine import Detector
from rdn_engine.backends.graph import BackendChoice
from rdn_engine.bundle.directory import Bundle
from rdn_engine.cache import CACHE_VARIABLE
from rdn_engine.errors import PrecisionError
from rdn_engine.frame import Image
from rdn_engine.kernels import _C
from rdn_engine.stream.base import Stream
from rdn_engine.text import read_text
from training.arguments import given_path
from training.data.synthetic import SyntheticVideos

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "own_detector_cost.json"
RELATIONS = ROOT / "training" / "configs" / "fcos_tiny_relations.yaml"
SIDE = 576
WINDOW = 15
"""T: 31 frames"""
PROPOSALS = (30, 75)
"""K and N"""
DIM = 128
DRAWN = (576, 324)
"""(width, height) that videos are drawn in, pixels: what a frame has in the network, so that objects are as large there
as those that the detector learnt from"""
FRAME = (1280, 720)
"""(width, height) of a frame, pixels"""
DISTINCT = 4
CALIBRATION = (6, 12, 24)
"""Videos that INT8 ranges are found on, frames of each, and frames of another video that it is judged on"""
LEARNT = (40, 12)
"""Videos that relations learn from, and frames of each"""
STEPS, WARM_UP = 200, 25
"""Of each of their two phases"""
HELD_OUT = (20, 12)
"""Videos that detections are counted on, and frames of each"""


def frames_of(split: str, index: int, count: int) -> list[Image]:
    """A rendered video as it comes from a camera: uint8 [H, W, 3] RGB of `FRAME`."""
    drawn = SyntheticVideos(split, index + 1, count, DRAWN)[index].frames
    return [np.asarray(PIL.Image.fromarray(f).resize(FRAME, PIL.Image.Resampling.BICUBIC)) for f in drawn]


def make(folder: Path) -> None:
    """The detector's file, its engine directory, and the one with relations on it; what is there is kept."""
    # Here, so that the process that is timed has no torch in it.
    from benchmarks.frame import yolox
    from export.attach import Options, attach
    from export.attach_relations import attach_relations
    from training.data.drawing import CLASS_NAMES
    from training.settings import Settings
    from training.trainer import Trainer

    folder.mkdir(parents=True, exist_ok=True)
    detector, alone, engines, run = (folder / name for name in ("yolox_s.onnx", "alone", "relations", "run"))
    if not detector.exists():
        yolox.write(yolox.train(folder / "training"), detector, SIDE)
    if not alone.exists():
        attach(detector, alone, Options("yolox", CLASS_NAMES))
    if not engines.exists():
        changes = [f"detector={alone}", f"model.relation.dim={DIM}", f"model.dials.window={WINDOW}"]
        changes += [f"model.dials.{count}={PROPOSALS[-1]}" for count in ("num_support", "num_reference")]
        clips = {"num_videos": LEARNT[0], "num_frames": LEARNT[1], "size": list(DRAWN)}
        changes += [f"data.train.0.synthetic.{name}={value}" for name, value in clips.items()]
        changes += [f"warm_up={WARM_UP}", *(f"phases.{phase}.iterations={STEPS}" for phase in range(2))]
        Trainer(Settings.read(RELATIONS, changes), run).run()
        attach_relations(alone, run / "model.safetensors", engines)


def int8_of(folder: Path) -> Path:
    """The directory in INT8, of this process's instruction set."""
    return folder / f"int8_{_C.isa}"


def make_int8(folder: Path) -> str | None:
    """The directory with relations in INT8, beside the others; why there is none, where it is refused."""
    from export.quantize_attached import quantize_attached

    frames = folder / "frames"
    if not int8_of(folder).exists():
        frames.mkdir(exist_ok=True)
        videos, length, judged = CALIBRATION
        shown = [frame for i in range(videos) for frame in frames_of("calibration", i, length)]
        for t, frame in enumerate([*shown, *frames_of("calibration", videos, judged)]):
            PIL.Image.fromarray(frame).save(frames / f"{t:04d}.png")
        try:
            quantize_attached(folder / "relations", frames, int8_of(folder))
        except PrecisionError as error:
            return str(error)
    return None


def found_by(engines: Path) -> float:
    """AP50 on held-out rendered videos, in percent, with the backend that `auto` takes; kept beside the directory."""
    from training.evaluation.detect import RunDetector, evaluate
    from training.evaluation.videos import from_synthetic

    kept = engines.with_name(f"{engines.name}_found_{_C.isa}.json")
    if not kept.exists():
        detector = Detector.from_pretrained(engines, threads=1, backend="auto")
        videos = from_synthetic(SyntheticVideos("test", *HELD_OUT, DRAWN))
        found = evaluate(RunDetector(detector, detector.config.dials), videos)["vid"]["AP50"]
        kept.write_text(json.dumps({"AP50": found}), encoding="utf-8")
    return float(json.loads(read_text(kept))["AP50"])


def stream_of(engines: Path, backend: BackendChoice, frames: Sequence[Image], **dials: Any) -> tuple[Stream, str]:
    """A stream with a full window, and the backend that it runs on."""
    detector = Detector.from_pretrained(engines, threads=1, backend=backend)
    turned = detector.config.dials.turned(dials)
    stream = detector.open_stream(turned)
    for t in range(turned.window + turned.frames_ahead + (turned.link_delay if turned.link != "off" else 0) + 2):
        stream.push(frames[t % DISTINCT])
    return stream, str(detector.backend)


def measure(folder: Path, rounds: int, against: Path | None) -> list[dict[str, Any]]:
    """One row for each number of proposals."""
    import onnxruntime as ort

    from rdn_engine.host import preprocess

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(folder / "yolox_s.onnx", options, providers=["CPUExecutionProvider"])
    frames = frames_of("test", 0, DISTINCT)
    given = Bundle.open(folder / "relations").config.input
    inputs = [preprocess.network_input(frame, given, 1)[None] for frame in frames]
    (name,) = (value.name for value in session.get_inputs())
    compared = {"stream": folder / "relations"}
    if against is not None:
        compared |= {"int8": int8_of(folder)} if int8_of(folder).exists() else {}
        compared |= {"against": against}
    rows = []
    for count in PROPOSALS:
        turned = {"num_support": count, "num_reference": count, "link": "relations"}
        streams: dict[str, Stream] = {}
        backends: dict[str, str] = {}
        for side, engines in compared.items():
            dials = {} if side == "against" else turned
            streams[side], _ = stream_of(engines, "onnxruntime", frames, **dials)
            if against is not None:
                fastest, backend = stream_of(engines, "auto", frames, **dials)
                if backend != "onnxruntime":
                    streams[f"{side}_fastest"], backends[side] = fastest, backend
        streams["detector"], _ = stream_of(folder / "alone", "onnxruntime", frames, **(turned | {"link": "off"}))
        taken: dict[str, list[float]] = {side: [] for side in ("alone", *streams)}
        before = {side: dict(stream.timings.seconds) for side, stream in streams.items()}
        fill = 0
        for number in range(rounds):
            t = number % DISTINCT
            work: dict[str, Callable[[], Any]] = {"alone": partial(session.run, None, {name: inputs[t]})}
            work |= {side: partial(stream.push, frames[t]) for side, stream in streams.items()}
            for side in sorted(work, reverse=bool(number % 2)):
                begin = time.process_time()
                found = work[side]()
                taken[side].append(1e3 * (time.process_time() - begin))
                if side == "stream":
                    fill = found[0].pool_fill
        stages = {
            side: {s: round(1e3 * (x - before[side][s]) / rounds, 3) for s, x in stream.timings.seconds.items()}
            for side, stream in streams.items()
        }
        rows.append(
            {
                "proposals": count,
                "window_frames": fill,
                "fastest": backends,
                **{side: summary(ms) for side, ms in taken.items()},
                **{f"stream_over_{s}": summary(ratios(taken["stream"], taken[s])) for s in ("alone", "detector")},
                **{
                    f"{other}_over_{side}": summary(ratios(taken[other], taken[side]))
                    for other in ("against", "against_fastest")
                    for side in ("stream", "stream_fastest", "int8", "int8_fastest")
                    if other in taken and side in taken
                },
                "stages_ms": stages,
                "rounds": {side: [round(ms, 3) for ms in of] for side, of in taken.items()},
            }
        )
        for stream in streams.values():
            stream.close()
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "rounds"}), file=sys.stderr, flush=True)
    return rows


def timed(folder: Path, rounds: int, against: Path | None, core: int) -> list[dict[str, Any]]:
    """`measure` in a process of its own, whose libraries read the number of threads as they start."""
    command = [sys.executable, str(Path(__file__).resolve()), "--timed", "--folder", str(folder)]
    command += ["--rounds", str(rounds), "--core", str(core)]
    command += ["--against", str(against)] if against else []
    with tempfile.TemporaryDirectory() as cache:
        # What was the fastest elsewhere, or with other instruction sets, need not be here.
        variables = os.environ | environment_of(1) | {CACHE_VARIABLE: cache}
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--folder", type=given_path, default=ROOT / "runs" / "own_detector")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument(
        "--against", type=given_path, metavar="ENGINES", help="another engine directory, timed beside it"
    )
    parser.add_argument("--prepare", action="store_true", help="make what is timed, and time nothing")
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
    told = {side: found_by(folder / side) for side in ("alone", "relations")}
    if against and refused is None:
        told["int8"] = found_by(int8_of(folder))
    if arguments.prepare:
        return
    from training.provenance import environment

    rows = timed(folder, arguments.rounds, against, arguments.core)
    measured: dict[str, Any] = {"side": SIDE, "dim": DIM, "frame": FRAME, "held_out": HELD_OUT, "AP50": told}
    measured["rows"] = rows
    if against:
        other = Bundle.open(against).manifest
        measured |= {"against": {"name": other.name, "precision": other.precision}, "int8_refused": refused}
    if against and refused is None:
        agreed = Bundle.open(int8_of(folder)).manifest.agreement
        assert agreed is not None
        measured["agreement"] = asdict(agreed)
    arguments.output.write_text(json.dumps(environment() | measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
