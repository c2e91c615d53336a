"""Checkpoints in the public YOLOV layout: read, sized by their shapes, checked name by name.

The layout is `{'model': {name: tensor}}`, with an optimiser's state beside it in training checkpoints; 506 tensors for
-s. Online and offline heads have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rdn_engine.config import (
    AttachedConfig,
    CosineConfig,
    DetectionConfig,
    Dials,
    RDNConfig,
    RelationConfig,
    RoIConfig,
)
from rdn_engine.errors import CheckpointError
from rdn_engine.input_config import InputConfig
from training.checkpoints.public_layout import need
from training.checkpoints.tensors import State, check, read_tensors
from training.model.yolov import HEADS, YOLOV
from training.model.yolox import STRIDES, YOLOXSize

INPUT_SIZE = (576, 576)
"""(height, width) that the public models were trained around."""
PROPOSALS = 30
"""Of a frame."""
MEMORY = 31
"""Frames that a frame's proposals look at beside their own."""
DIALS = Dials(
    window=MEMORY,
    look_ahead=0,
    num_support=PROPOSALS,
    num_reference=PROPOSALS,
    advanced_ratio=1.0,
    edges="clip",
)
"""Of the public online head."""

_STEM = "backbone.backbone.stem.conv.conv.weight"
_COUNTER = "num_batches_tracked"
_PLUS = "head.agg."


@dataclass(frozen=True)
class YOLOVCheckpoint:
    """A model's weights, float32 under the public names, and the configuration they fit."""

    config: RDNConfig
    size: YOLOXSize
    state: State
    notes: tuple[str, ...] = ()
    """What was chosen where the file left a choice, for people"""

    def model(self) -> YOLOV:
        """The torch model in evaluation mode."""
        with torch.device("meta"):
            model = YOLOV(self.size, self.config.cosine)
        model.load_state_dict(self.state, assign=True)
        return model.eval()


def is_yolov(names: Iterable[str]) -> bool:
    """Whether names of tensors are those of the public YOLOV layout, complete or not.

    Args:
        names: of a checkpoint's tensors.
    """
    return any(name.startswith(("backbone.backbone.stem.", "head.cls_convs", "head.trans.", _PLUS)) for name in names)


def load_yolov(
    path: str | Path,
    class_names: tuple[str, ...],
    *,
    input_size: tuple[int, int] = INPUT_SIZE,
    cosine: CosineConfig | None = None,
) -> YOLOVCheckpoint:
    """Read a checkpoint in the public YOLOV layout; width, depth and classes come from its shapes.

    Args:
        path: of the file; no code in it runs.
        class_names: in the order of the checkpoint, which does not name them.
        input_size: (height, width) of the network input, multiples of 32 pixels.
        cosine: what no tensor tells of the attention; None for the public online head's constants.

    Returns:
        Configuration and tensors.

    Raises:
        CheckpointError: the file cannot be read, is of another layout or of YOLOV++, or tensors are missing, unexpected
            or misshapen (each named), or it has another number of classes than names were given.
        ConfigError: the size or the names are no configuration.
    """
    path = Path(path)
    tensors, _, notes = read_tensors(path)
    size = yolox_size(tensors, path.name)
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in YOLOV(size, CosineConfig()).state_dict().items()}
    # How many batches a norm saw means nothing once it is trained; some writers leave it out.
    counters = {k: torch.zeros((), dtype=torch.int64) for k in wanted if k.endswith(_COUNTER)}
    state = counters | {k: v.long() if k.endswith(_COUNTER) else v.float() for k, v in tensors.items()}
    check(state, wanted, path.name)
    if size.classes != len(class_names):
        raise CheckpointError(f"{path.name} has {size.classes} classes; {len(class_names)} names were given for them")
    config = yolov_config(size, class_names, input_size, cosine or CosineConfig())
    return YOLOVCheckpoint(config, size, state, notes)


def yolox_size(tensors: State, where: str) -> YOLOXSize:
    """Width, depth and classes, from the shapes of a checkpoint's tensors.

    Args:
        tensors: by name.
        where: the file, for messages.

    Returns:
        What they tell.

    Raises:
        CheckpointError: for another layout, YOLOV++ or another backbone.
    """
    if not is_yolov(tensors):
        raise CheckpointError(
            f"{where} is not in the public YOLOV layout: none of its {len(tensors)} names begins with "
            "backbone.backbone.stem. or head."
        )
    if any(name.startswith(_PLUS) for name in tensors):
        raise CheckpointError(
            f"{where} is YOLOV++ (it has {_PLUS}*); wanted YOLOV, with head.trans.*: the two attentions and the choice "
            "of proposals of YOLOV++ are not supported"
        )
    stem = need(tensors, _STEM, where, 4).shape[0]
    depth = len({name.split(".")[5] for name in tensors if name.startswith("backbone.backbone.dark2.1.m.")})
    classes = need(tensors, "head.cls_preds.0.weight", where, 4).shape[0]
    if not depth or stem % 2 or stem * 4 % HEADS:
        raise CheckpointError(
            f"{where}: {_STEM} has {stem} outputs and backbone.backbone.dark2.1.m {depth} bottlenecks; wanted an even "
            "number and one or more, as CSPDarknet has them"
        )
    return YOLOXSize(stem, depth, classes)


def yolov_config(
    size: YOLOXSize, class_names: tuple[str, ...], input_size: tuple[int, int], cosine: CosineConfig
) -> RDNConfig:
    """The configuration of a YOLOV model.

    Args:
        size: of its YOLOX.
        class_names: as many as the size says.
        input_size: (height, width) of the network input, pixels.
        cosine: the constants of its attention.

    Raises:
        CheckpointError: for sides that are no multiples of the coarsest stride.
        ConfigError: for values outside their range.
    """
    if any(side < STRIDES[-1] or side % STRIDES[-1] for side in input_size):
        raise CheckpointError(
            f"the network input is {input_size[0]} x {input_size[1]}; wanted multiples of {STRIDES[-1]}"
        )
    return RDNConfig(
        class_names=class_names,
        input=InputConfig(fit="letterbox", size=input_size, channel_order="bgr", mean=(0.0,) * 3, padding=114.0),
        roi=RoIConfig(size=1, reduce_channels=None),
        relation=RelationConfig(attention="cosine_score", dim=size.dim, heads=HEADS, num_basic=0, advanced=False),
        cosine=cosine,
        # There is no limit on detections: every class of every proposal.
        detection=DetectionConfig(nms_threshold=0.5, max_detections=PROPOSALS * size.classes),
        dials=replace(DIALS, score_threshold=0.001),
        attached=AttachedConfig(
            relations=True,
            num_classes=size.classes,
            features=size.dim,
            features_reg=size.dim,
            objectness=True,
            batched=True,
            pre_nms_top_n=750,
            nms_threshold=0.75,
        ),
    )
