"""An engine directory of a detector, and relations that were trained on it: one engine directory.

    python export/attach_relations.py --engines engines/own --checkpoint runs/own/best.safetensors --output engines/rdn

`--engines` is what export/attach.py wrote and training/train.py had as `detector`. The directory appears, complete and
verified, or not at all. Exit codes: 0 written; 1 something is wrong or missing; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.dials import turned
from export.golden import LARGEST_TOLERANCE, SMALLEST_TOLERANCE, TOLERANCE_FACTOR, golden_frames, golden_results
from export.graphs import OPSET, export_graphs
from export.verify import BUNDLE_TOLERANCES, GRAPH_TOLERANCE, Comparison, compare_graphs
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import Bundle, write_bundle, write_manifest
from rdn_engine.bundle.manifest import ENCODER, GOLDEN
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.errors import AttachError, CheckpointError, RDNError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder
from rdn_engine.verify import StageReport, detection_rows, set_difference
from training.arguments import given_path
from training.checkpoints.files import load_checkpoint
from training.model.attached import AttachedRDN
from training.model.inference import detect_video


@dataclass(frozen=True)
class Joined:
    """What was compared on the way."""

    graphs: list[Comparison]
    """Of each float32 graph against torch"""
    stages: list[StageReport]
    """The finished bundle against its golden results"""


def attach_relations(
    engines: str | Path, checkpoint: str | Path, output: str | Path, *, name: str | None = None,
    golden: Path | None = None, dials: Sequence[str] = (),
) -> Joined:  # fmt: skip
    """Write an engine directory; an older one there is replaced once the new one is verified.

    Args:
        engines: of the detector alone.
        checkpoint: our safetensors, of a training on it.
        output: the engine directory.
        name: of the model; the directory's by default.
        golden: video or folder of images for the golden results; rendered frames by default.
        dials: of the directory, each `name=value`; those of the training by default.

    Returns:
        What was compared on the way.

    Raises:
        CheckpointError: for a checkpoint of another detector, or of none.
        AttachError: where the graphs do not compute what torch computes.
        RDNError: the directory or the frames cannot be used; its subclass says which.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    images, bundle, loaded = golden_frames(golden), Bundle.open(engines), load_checkpoint(Path(checkpoint))
    config = replace(loaded.config, dials=turned(loaded.config.dials, dials))
    _require_same(bundle.config, config, checkpoint)
    model = replace(loaded, config=config).model()
    assert isinstance(model, AttachedRDN)
    encoder = AttachedEncoder(config, load_backend("onnxruntime", "cpu", 1).load(bundle.path("encoder")), None, 1)
    model.encoder = encoder
    with write_bundle(output) as staging:
        shutil.copyfile(bundle.path("encoder"), staging / ENCODER)
        parameters = export_graphs(model, staging)
        rows = compare_graphs(model, staging, images)
        wrong = [f"{r.graph} {r.output} ({r.case}): {r.relative:.2g}" for r in rows if not r.passed]
        if wrong:
            raise AttachError(f"differs from torch by more than {GRAPH_TOLERANCE}: {'; '.join(wrong)}")
        arrays = golden_results(model, images)
        for t, image in enumerate(images):
            (found,) = encoder.candidates(preprocess.network_input(image, config.input, 1)[None])
            arrays[f"t{t}/rows"] = encoder.select(found, config.dials.num_reference)
        np.savez(staging / GOLDEN, **arrays)  # type: ignore[arg-type]
        write_manifest(
            staging,
            name=name or output.name,
            config=config,
            precision="float32",
            opset=max(OPSET, bundle.manifest.opset),
            producers={"rdn_engine": rdn_engine.__version__}
            | {package: version(package) for package in ("torch", "onnx", "onnxruntime")},
            source={**bundle.manifest.source, "checkpoint": checkpoint.name, "checkpoint_sha256": _sha256(checkpoint)},
            parameters={**bundle.manifest.parameters, **parameters},
            tolerances={**BUNDLE_TOLERANCES, "detections": _tolerance(model, arrays)},
        )
        stages = rdn_engine.verify.verify(staging)
        failed = [f"{s.stage} ({s.executor}): {s.difference:.2g}" for s in stages if not s.passed]
        if failed:
            raise AttachError(f"the bundle is not what torch computes: {'; '.join(failed)}")
    return Joined(rows, stages)


def _require_same(detector: RDNConfig, trained: RDNConfig, checkpoint: Path) -> None:
    """The relations must have been trained on this detector."""
    if trained.attached is None:
        raise CheckpointError(f"{checkpoint} was trained without a detector attached; wanted training with `detector`")
    if detector.attached is None or detector.attached.relations:
        raise CheckpointError("--engines is no detector alone; wanted what export/attach.py writes")
    theirs, ours = trained.to_dict(), detector.to_dict()
    theirs["attached"]["relations"] = False
    differ = [name for name in ("attached", "input", "roi") if theirs[name] != ours[name]]
    if differ:
        told = "; ".join(f"{name} is {theirs[name]} there, {ours[name]} here" for name in differ)
        raise CheckpointError(f"{checkpoint} was trained on another detector: {told}")


def _tolerance(model: AttachedRDN, golden: dict[str, NDArray[np.generic]]) -> float:
    """As `export.golden.detection_tolerance`, with float64 as the other roundings: there are no norms to fold."""
    images = np.asarray(golden["frames"], np.uint8)
    other = AttachedRDN(model.config).double().eval()
    other.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    other.encoder = model.encoder
    side = max(images.shape[1:3])
    rows = []
    for model_of in (model, other):
        results = detect_video(model_of, list(images))
        rows.append([detection_rows((r.xyxy / side).float().numpy(), r.confidence.float().numpy(), r.class_id.numpy())
                     for r in results])  # fmt: skip
    return min(max(TOLERANCE_FACTOR * set_difference(*rows), SMALLEST_TOLERANCE), LARGEST_TOLERANCE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--engines", type=given_path, required=True, help="engine directory of the detector alone")
    parser.add_argument("--checkpoint", type=given_path, required=True, help=".safetensors of a training on it")
    parser.add_argument("--output", type=given_path, required=True, help="engine directory to write")
    parser.add_argument("--name", help="of the model; default: the name of the directory")
    parser.add_argument("--golden", type=given_path, help="video or folder of images for the golden results")
    known = ", ".join(f.name for f in fields(Dials))
    parser.add_argument("--dial", action="append", default=[], metavar="NAME=VALUE",
                        help=f"in place of the training's; may be repeated: {known}")  # fmt: skip
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    try:
        joined = attach_relations(
            arguments.engines, arguments.checkpoint, arguments.output, name=arguments.name, golden=arguments.golden,
            dials=arguments.dial,
        )  # fmt: skip
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return 1
    table = Table("stage", "executor", "difference", "tolerance")
    for s in joined.stages:
        table.add_row(s.stage, s.executor, f"{s.difference:.1e}", f"{s.tolerance:.0e}")
    console.print(table)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
