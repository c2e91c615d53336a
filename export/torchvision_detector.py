"""From a detector of torchvision to the ONNX file that export/attach.py reads: every box in front of the last NMS.

    python export/torchvision_detector.py --model fcos_resnet50_fpn --checkpoint w.pth --size 608 800 --output fcos.onnx
    python export/attach.py --detector fcos.onnx --family torchvision --classes names.txt --output engines/fcos

FCOS, RetinaNet, SSD, SSDLite and Faster R-CNN with what is built on it; also the small FCOS that training/train.py
makes, by its checkpoint alone. Features are those that classes and boxes are predicted from, side by side; SSD's levels
differ in width, so it gives a map that features are pooled from. The command that attaches the file is printed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import onnx
import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn
from torchvision.models._api import get_model, list_models
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

# So that the script runs from a checkout; the package of that name is what is installed, or the checkout's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from export.two_stage import TwoStage
from rdn_engine.errors import AttachError, CheckpointError, RDNError
from training.arguments import given_path
from training.checkpoints.fcos import load_fcos
from training.model.fcos import SmallFCOS

OPSET = 18
PROPOSALS = 300
"""Of an image, where a detector chooses them inside"""
Model = FCOS | RetinaNet | SSD | FasterRCNN


class Dense(nn.Module):
    """boxes [1, A, 4] (edges, pixels), class_scores [1, A, C] and features of one image."""

    def __init__(self, model: FCOS | RetinaNet | SSD, size: tuple[int, int], kept: Sequence[int]) -> None:
        """Find the anchors, which the size decides.

        Args:
            model: in evaluation mode.
            size: (height, width) of the images.
            kept: columns of its scores that are classes; the background is none.
        """
        super().__init__()
        self.model = model
        image = torch.zeros(1, 3, *size)
        with torch.no_grad():
            maps = list(model.backbone(image).values())
            (anchors,) = model.anchor_generator(ImageList(image, [size]), maps)
        self.register_buffer("anchors", anchors)
        self.register_buffer("kept", torch.tensor(kept))
        self.anchors: Tensor
        self.kept: Tensor

    @property
    def feature_name(self) -> str:
        """The output that features come from."""
        return "feature_map" if isinstance(self.model, SSD) or _map_channels(self.model) else "features"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        levels, pooled = model.backbone.both(image) if isinstance(model, SmallFCOS) else (model.backbone(image), None)
        maps = list(levels.values())
        if isinstance(model, SSD):
            found = model.head(maps)
            scores = found["cls_logits"].softmax(-1)
            features = maps[0]
        else:
            classify: Any = model.head.classification_head
            regress: Any = model.head.regression_head
            towers = [(classify.conv(m), regress.conv(m)) for m in maps]
            rows = [torch.cat(pair, 1).flatten(2).transpose(1, 2) for pair in towers]
            features = torch.cat(rows, 1) if pooled is None else pooled
            logits = _rows([classify.cls_logits(c) for c, _ in towers], classify.num_classes)
            found = {"bbox_regression": _rows([regress.bbox_reg(r) for _, r in towers], 4)}
            scores = logits.sigmoid()
            if isinstance(model, FCOS):
                centre = _rows([regress.bbox_ctrness(r) for _, r in towers], 1)
                scores = (scores * centre.sigmoid()).sqrt()
                found["bbox_regression"] = found["bbox_regression"].relu()
        if isinstance(model, FCOS):
            boxes = model.box_coder.decode(found["bbox_regression"][0], self.anchors)
        else:
            boxes = model.box_coder.decode_single(found["bbox_regression"][0], self.anchors)
        return boxes[None], scores.index_select(2, self.kept), features


def _map_channels(model: Model) -> int:
    """Of a map that our own small FCOS has beside its levels."""
    return model.fcos.map_channels if isinstance(model, SmallFCOS) else 0


def _rows(maps: list[Tensor], width: int) -> Tensor:
    """[1, A * width, H, W] of each level -> [1, all A, width]."""
    rows = [m.unflatten(1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3) for m in maps]
    return torch.cat(rows, 1)


def build(name: str, checkpoint: Path | None, num_classes: int) -> Model:
    """Make a detector of torchvision.

    Args:
        name: of its constructor in torchvision.models.detection.
        checkpoint: its state_dict; None leaves the weights random.
        num_classes: columns of its scores, the background included.

    Raises:
        AttachError: for a name that is none of torchvision's.
        CheckpointError: for weights that are not its own.
    """
    known = list_models(module=torchvision.models.detection)
    if name not in known:
        raise AttachError(f"--model is {name!r}; torchvision {version('torchvision')} has {known}")
    more: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": num_classes}
    model = get_model(name, **more).eval()
    if not isinstance(model, Model):
        raise AttachError(f"{name} is a {type(model).__name__}; wanted FCOS, RetinaNet, SSD or Faster R-CNN")
    if checkpoint is not None:
        try:
            model.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
        except Exception as error:  # torch.load and load_state_dict raise what they meet
            raise CheckpointError(f"{checkpoint} does not hold the weights of {name}: {error}") from error
    return model


def export(model: Model, size: tuple[int, int], kept: Sequence[int], path: Path, proposals: int = PROPOSALS) -> str:
    """Write a detector with all its boxes.

    Args:
        model: in evaluation mode.
        size: (height, width) of the images, pixels.
        kept: columns of its scores that are classes.
        path: of the ONNX file.
        proposals: of Faster R-CNN, the most that its region proposals may be.

    Returns:
        The name of the output that features come from.
    """
    graph = TwoStage(model, size, kept, proposals) if isinstance(model, FasterRCNN) else Dense(model, size, kept)
    dense = graph.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            dense,
            (torch.zeros(1, 3, *size),),
            input_names=["image"],
            output_names=["boxes", "class_scores", dense.feature_name],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)
    return dense.feature_name


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", help="as torchvision.models.detection has it; default: what --checkpoint says, of a "
                        "training with `fcos`")  # fmt: skip
    parser.add_argument("--checkpoint", type=given_path, help="its state_dict; default: random weights")
    parser.add_argument("--num-classes", type=int, default=91, help="of --model, background included; default: 91")
    parser.add_argument(
        "--proposals", type=int, default=PROPOSALS, help="of Faster R-CNN, the most of an image; default: %(default)s"
    )
    parser.add_argument("--size", type=int, nargs=2, required=True, metavar=("HEIGHT", "WIDTH"), help="of the images")
    parser.add_argument("--output", type=given_path, required=True, help="ONNX file to write")
    return parser.parse_args(argv)


def kept_columns(num_classes: int) -> list[int]:
    """The columns of the scores that are classes: not the background, and of COCO's 91 not those without a name.

    Args:
        num_classes: columns in all.
    """
    names = torchvision.models.detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    unused = [i for i, name in enumerate(names) if name == "N/A"] if num_classes == len(names) else []
    return [i for i in range(1, num_classes) if i not in unused]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        if arguments.model is not None:
            model = build(arguments.model, arguments.checkpoint, arguments.num_classes)
            kept = kept_columns(arguments.num_classes)
        elif arguments.checkpoint is not None:
            model = trained = load_fcos(arguments.checkpoint)
            kept = list(range(1, trained.config.num_logits))
        else:
            raise AttachError("neither --model nor --checkpoint is given; wanted one or both")
        features = export(model, tuple(arguments.size), kept, arguments.output, arguments.proposals)
    except (RDNError, OSError) as error:
        Console(stderr=True).print(
            f"[red]error:[/red] {type(error).__name__}: {error}", highlight=False, soft_wrap=True
        )
        return 1
    transform = cast("Any", model.transform)
    given = [round(255 * x, 3) for x in (*transform.image_mean, *transform.image_std)]
    words = [" ".join(f"{x:g}" for x in part) for part in (given[:3], given[3:])]
    more = "" if features == "features" else f" --feature-map {features}"
    if isinstance(model, SSD):
        more = f" --fit stretch{more}"
    elif isinstance(model, SmallFCOS) and more:
        more += f" --pooled-side {model.config.roi.size}"
    print(f"python export/attach.py --detector {arguments.output} --family torchvision --mean {words[0]} --std "
          f"{words[1]}{more} --classes NAMES --output ENGINES")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
