"""From somebody's detector, an ONNX file, to an engine directory whose streams link its boxes along the video.

    python export/attach.py --detector yolox_s.onnx --family yolox --classes coco --output engines/yolox_s
    python export/attach.py --detector rtdetr.onnx --family rtdetr --classes names.txt --output engines/rtdetr
    python export/attach.py --detector mine.onnx --family generic --boxes dets --scores probs --classes names.txt \\
        --output engines/mine

Every cell's or query's boxes and scores are wanted, in front of any NMS. docs/own_detector.md has the contract and what
to name where a detector is read wrongly. The directory appears, complete and verified, or not at all. Exit codes:
0 attached; 1 something is wrong or missing, which the message names; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdn_engine.verify
from export.families import FAMILIES, FamilyName, Given, Preprocessing, reading_of
from export.golden import golden_frames
from export.precision import detector_of, golden_of
from export.reading import Activation, Background, BoxFormat, BoxUnit, Read, read
from export.surgery import Surgery
from export.verify import BUNDLE_TOLERANCES
from rdn_engine.backends import load_backend
from rdn_engine.bundle.directory import write_bundle, write_manifest
from rdn_engine.bundle.manifest import ENCODER, GOLDEN
from rdn_engine.config import AttachedConfig, DetectionConfig, Dials, RDNConfig, RelationConfig, RoIConfig
from rdn_engine.errors import AttachError, RDNError
from rdn_engine.host import preprocess
from rdn_engine.host.attached import AttachedEncoder, DetectorScores
from rdn_engine.host.model import HostModel
from rdn_engine.input_config import Fit, InputConfig
from rdn_engine.text import read_text
from rdn_engine.verify import StageReport, stages_of
from training.arguments import given_path

FAILED = 1
DIALS = Dials(window=0, look_ahead=0, num_support=1, num_reference=100, advanced_ratio=1.0)
"""Of a detector alone: no window, so that a frame's boxes are there at once."""


@dataclass(frozen=True)
class Options:
    """What the caller says of a detector beside its file."""

    family: FamilyName
    classes: tuple[str, ...]
    given: Given = field(default_factory=Given)
    size: tuple[int, int] | None = None
    """(height, width) of the network input, pixels; None takes what the file says."""
    preprocessing: Preprocessing | None = None
    """None for the family's."""
    nms_threshold: float | None = None
    """IoU in 0..1 within a class above which the worse of two results leaves; None for the family's."""
    pooled_side: int = 1
    """Cells on a side of what is pooled from a feature map."""
    labels_start: int = 0
    """Value of the labels of the first class."""
    dials: Dials = DIALS


@dataclass(frozen=True)
class Attached:
    """What came of it."""

    config: RDNConfig
    stages: list[StageReport]
    """The finished bundle against its golden results"""
    detections: list[int]
    """How many each golden frame has, above a score of 0.3"""


def attach(
    detector: str | Path, output: str | Path, options: Options, *, name: str | None = None, golden: Path | None = None
) -> Attached:
    """Write an engine directory around a detector; an older one there is replaced once the new one is verified.

    Args:
        detector: ONNX file.
        output: the engine directory.
        options: what is known of it.
        name: of the model; the directory's by default.
        golden: video or folder of images for the golden results; rendered frames by default.

    Returns:
        What came of it.

    Raises:
        AttachError: for a detector that cannot be read so, or gives something else than it should.
        RDNError: classes or frames cannot be used; its subclass says which.
    """
    detector, output = Path(detector), Path(output)
    images = golden_frames(golden)
    surgery = Surgery(detector, options.size)
    how = reading_of(surgery, options.family, options.given, len(options.classes))
    found = read(surgery, how, len(options.classes), options.labels_start, options.pooled_side)
    config = _config(options, surgery, found)
    with write_bundle(output) as staging:
        onnx.save(surgery.finish(found.outputs), staging / ENCODER)
        graph = load_backend("onnxruntime", "cpu", 1).load(staging / ENCODER)
        config = replace(
            config, attached=replace(cast("AttachedConfig", config.attached), batched=_batched(config, graph))
        )
        encoder = AttachedEncoder(config, graph, None, 1)
        model = HostModel(config, encoder, DetectorScores(), 1)
        arrays = golden_of(model, images)
        for t, image in enumerate(images):
            (candidates,) = encoder.candidates(preprocess.network_input(image, config.input, 1)[None])
            arrays[f"t{t}/rows"] = encoder.select(candidates, config.dials.num_reference)
            for empty in ("logits", "deltas"):
                del arrays[f"t{t}/{empty}"]
        np.savez(staging / GOLDEN, **arrays)  # type: ignore[arg-type]
        write_manifest(
            staging,
            name=name or output.name,
            config=config,
            precision="float32",
            opset=surgery.opset,
            producers={p: version(p) for p in ("onnx", "onnxruntime")} | {"rdn_engine": rdn_engine.__version__},
            source={"detector": detector.name, "sha256": _sha256(detector), "family": options.family},
            parameters={"encoder": surgery.parameters},
            tolerances={s: t for s, t in (BUNDLE_TOLERANCES | {"detections": 1e-3}).items() if s in stages_of(config)},
        )
        stages = rdn_engine.verify.verify(staging)
        wrong = [f"{s.stage}: {s.difference:.2g}" for s in stages if not s.passed]
        if wrong:
            raise AttachError(f"{detector.name} does not give the same twice: {'; '.join(wrong)}")
        results = detector_of(model).predict(list(images), dials=replace(config.dials, link="off"))
    return Attached(config, stages, [int((r.confidence > 0.3).sum()) for r in results])


def _config(options: Options, surgery: Surgery, found: Read) -> RDNConfig:
    family = FAMILIES[options.family]
    how = options.preprocessing or family.preprocessing
    final = family.nms_threshold if options.nms_threshold is None else options.nms_threshold
    return RDNConfig(
        class_names=options.classes,
        input=InputConfig(
            channel_order=how.channel_order,
            mean=how.mean,
            std=how.std,
            fit=how.fit,
            size=None if how.fit == "shorter_side" else surgery.size,
            padding=how.padding,
        ),
        roi=RoIConfig(size=options.pooled_side, reduce_channels=None),
        relation=RelationConfig(dim=len(options.classes), heads=1, num_basic=0, advanced=False),
        detection=DetectionConfig(nms_threshold=final, max_detections=options.dials.num_reference),
        dials=options.dials,
        attached=AttachedConfig(
            num_classes=len(options.classes),
            features=found.features,
            map_stride=found.map_stride,
            boxes_per_feature=found.boxes_per_feature,
            # What is suppressed at once could not come back.
            nms_threshold=max(family.proposal_nms, final),
        ),
    )


def _batched(config: RDNConfig, graph: Any) -> bool:
    """Whether two images in one call give what each gives alone: a free axis in the file does not promise it."""
    height, width = config.input.size or (config.input.shorter_side, config.input.longer_side)
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, height, width)).astype(np.float32)
    singles = [graph({"image": images[i : i + 1]}) for i in range(2)]
    try:
        both = graph({"image": images})
    except RDNError:
        return False
    return all(
        both[name].shape[0] == 2
        and all(np.allclose(both[name][i], singles[i][name][0], rtol=1e-3, atol=1e-3) for i in range(2))
        for name in both
    )


def class_names(given: str) -> tuple[str, ...]:
    """The names of a detector's classes, in its order.

    Args:
        given: `coco`, or a text file with a name a line.

    Raises:
        AttachError: for a file that is none, or has no name, or one twice.
    """
    if given == "coco":
        # Here, because only these names want it.
        from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

        named = FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        return tuple(name for name in named if name not in ("__background__", "N/A"))
    try:
        names = tuple(line.strip() for line in read_text(Path(given)).splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise AttachError(
            f"--classes {given!r} cannot be read: {error}; wanted coco, or a file with a name a line"
        ) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise AttachError(f"--classes {given!r} has {len(names)} names, {twice} more than once; wanted each once")
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--detector", type=given_path, required=True, help="ONNX file")
    parser.add_argument("--family", choices=get_args(FamilyName), required=True)
    parser.add_argument("--classes", required=True, help="coco, or a file with a name a line, in the detector's order")
    parser.add_argument("--output", type=given_path, required=True, help="engine directory to write")
    parser.add_argument("--name", help="of the model; default: the name of the directory")
    parser.add_argument("--golden", type=given_path, help="video or folder of images for the golden results")
    reading = parser.add_argument_group("how it is read; by default as the family has it")
    reading.add_argument("--boxes", help="tensor [batch, n, 4] or [batch, 4, n]")
    reading.add_argument(
        "--scores", help="tensor [batch, n, classes], [batch, classes, n], or [batch, n] with --labels"
    )
    reading.add_argument("--labels", help="tensor [batch, n] of class numbers")
    reading.add_argument("--labels-start", type=int, default=0, help="number of the first class; default: 0")
    reading.add_argument(
        "--features", nargs="+", default=(), help="tensors [batch, n, D], or [batch, D, h, w] of levels"
    )
    reading.add_argument("--feature-map", help="tensor [batch, channels, h, w] that features are pooled from")
    reading.add_argument("--pooled-side", type=int, default=1, help="cells on a side of what is pooled; default: 1")
    reading.add_argument("--box-format", choices=get_args(BoxFormat))
    reading.add_argument("--box-unit", choices=get_args(BoxUnit), help="pixels of the input, or parts of its sides")
    reading.add_argument("--activation", choices=get_args(Activation), help="what makes scores of 0..1")
    reading.add_argument("--background", choices=get_args(Background), help="which of the classes is none")
    reading.add_argument("--strides", type=int, nargs="+", default=(), help="of the levels of yolox; default: 8 16 32")
    images = parser.add_argument_group("how images go in; by default as the family has it")
    images.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="where the file leaves it free")
    images.add_argument("--fit", choices=[fit for fit in get_args(Fit) if fit != "shorter_side"])
    images.add_argument("--padding", type=float, help="0..255 around a letterboxed image")
    images.add_argument("--channel-order", choices=("bgr", "rgb"))
    images.add_argument("--mean", type=float, nargs=3, help="subtracted from 0..255")
    images.add_argument("--std", type=float, nargs=3, help="divides after the mean")
    parser.add_argument("--nms", type=float, help="IoU within a class above which the worse of two results leaves")
    parser.add_argument(
        "--proposals", type=int, default=DIALS.num_reference, help="most of a frame; default: %(default)s"
    )
    return parser.parse_args(argv)


def _options(arguments: argparse.Namespace) -> Options:
    said = vars(arguments)
    changes = {name: said[name] for name in ("fit", "padding", "channel_order") if said[name] is not None}
    changes |= {name: tuple(said[name]) for name in ("mean", "std") if said[name] is not None}
    given = {name: said[name] for name in vars(Given())}
    given |= {name: tuple(given[name]) for name in ("features", "strides")}
    return Options(
        family=arguments.family,
        classes=class_names(arguments.classes),
        given=Given(**given),
        size=tuple(arguments.size) if arguments.size else None,
        preprocessing=replace(FAMILIES[cast("FamilyName", arguments.family)].preprocessing, **changes),
        nms_threshold=arguments.nms,
        pooled_side=arguments.pooled_side,
        labels_start=arguments.labels_start,
        dials=replace(DIALS, num_reference=arguments.proposals),
    )


def _table(attached: Attached) -> Table:
    table = Table("stage", "difference", "tolerance")
    for s in attached.stages:
        table.add_row(s.stage, f"{s.difference:.1e}", f"{s.tolerance:.0e}")
    return table


def _doubt(golden: Path | None, attached: Attached) -> str | None:
    """Why `verify` of the directory proves little; None where it may prove enough."""
    if golden is None:
        return "the golden frames are rendered discs, triangles and stars, which few detectors know"
    return None if any(attached.detections) else "the golden frames show nothing that this detector is sure of"


def main(argv: Sequence[str] | None = None) -> int:
    console = Console(stderr=True)
    arguments = _arguments(argv)
    try:
        attached = attach(
            arguments.detector, arguments.output, _options(arguments), name=arguments.name, golden=arguments.golden
        )
    except (RDNError, OSError) as error:
        console.print(f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True)
        return FAILED
    console.print(_table(attached))
    width = cast("AttachedConfig", attached.config.attached).features
    console.print(f"features: {width or 'none found, so no relations can be trained on it (--features)'}")
    console.print(f"detections above 0.3 in the golden frames: {attached.detections}")
    if (doubt := _doubt(arguments.golden, attached)) is not None:
        console.print(
            f"note: {doubt}; with --golden and a video or a folder of images of its objects `verify` proves more",
            soft_wrap=True,
        )
    print(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
