"""A small anchor-free detector of single frames: torchvision's FCOS on the first stages of our backbone.

FCOS: Tian et al., *FCOS: Fully Convolutional One-Stage Object Detection*, ICCV 2019. Trained here, it is attached as
anybody's detector is (docs/own_detector.md), and relations are trained on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.resnet import BasicBlock

from rdn_engine.config import RDNConfig
from rdn_engine.host import preprocess
from rdn_engine.plain import check, check_fields
from training.model.backbone import Backbone

_FIRST_SIDE = 2.0
"""Cells from the middle of an object to its edges before anything is learnt; from 0 the ReLU behind would not learn."""


@dataclass(frozen=True)
class FCOSConfig:
    """What stands on the backbone."""

    channels: int = 64
    """Of the map and of each tower; a proposal's feature is twice as wide."""
    convs: int = 2
    """3x3 convolutions of each tower, one for classes and one for boxes."""
    strides: tuple[int, ...] = (8,)
    """Pixels of a cell of each level: 8, 16, or both. With both, objects whose middle is more than 64 pixels from an
    edge belong to the second."""
    stem: int = 0
    """Channels of the stem and of conv2; 0: as many as the backbone has. CPUs compute them in blocks of 16, and these
    two stages on the largest maps."""
    blocks: int = 0
    """Residual blocks of dilation 2 behind conv4, as wide as that: they stand in for conv5."""
    map_channels: int = 0
    """Of a map at stride 16 that features of proposals are pooled from, learnt from a teacher's; 0: there is none, and
    what classes and boxes are predicted from are the features."""

    def __post_init__(self) -> None:
        check_fields(self, "fcos", channels=(8, 1024), convs=(1, 8), stem=(0, 512), blocks=(0, 8),
                     map_channels=(0, 4096))  # fmt: skip
        known = ((8,), (16,), (8, 16))
        check(self.strides in known, "fcos.strides", self.strides, f"one of {known}")


@dataclass
class FrameBoxes:
    """What was found in one frame."""

    xyxy: Tensor
    """[n, 4] pixels of the frame, the last pixel included"""
    confidence: Tensor
    """[n] in 0..1, best first"""
    class_id: Tensor
    """[n] from 0"""


class Maps(nn.Module):
    """One map a level from conv3 (stride 8) and conv4 (stride 16), joined from the top down."""

    def __init__(self, config: RDNConfig, fcos: FCOSConfig) -> None:
        super().__init__()
        self.strides, self.out_channels = fcos.strides, fcos.channels
        self.trunk = Backbone(config.backbone)
        self.trunk.layer4 = nn.Sequential()  # conv5, which region proposals do not see either
        if fcos.stem:
            _narrow(self.trunk, fcos.stem)
        wide = self.trunk.c4_channels
        self.context = nn.Sequential(*(_dilated(wide) for _ in range(fcos.blocks)))
        self.pooled = nn.Conv2d(wide, fcos.map_channels, 1) if fcos.map_channels else None
        self.coarse = nn.Conv2d(wide, fcos.channels, 1)
        self.fine = nn.Conv2d(wide // 2, fcos.channels, 1) if 8 in fcos.strides else None
        self.smooth = nn.ModuleList(_conv(fcos.channels) for _ in fcos.strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The map of each level.

        Args:
            images: [B, 3, H, W] normalised network inputs.

        Returns:
            [B, channels, H / stride, W / stride] by stride, sides rounded up.
        """
        return self.both(images)[0]

    def both(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The maps of `forward`, and the one that features are pooled from.

        Args:
            images: [B, 3, H, W] normalised network inputs.

        Returns:
            As `forward`, and [B, map_channels, H / 16, W / 16], None without `map_channels`.
        """
        trunk = self.trunk
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        c3 = trunk.layer2(trunk.layer1(x))
        c4 = self.context(trunk.layer3(c3))
        pooled = None if self.pooled is None else self.pooled(c4).relu()
        coarse = self.coarse(c4)
        levels = {16: coarse}
        if self.fine is not None:
            larger = nn.functional.interpolate(coarse, size=c3.shape[-2:], mode="nearest")
            levels[8] = self.fine(c3) + larger
        return {str(s): smooth(levels[s]) for s, smooth in zip(self.strides, self.smooth, strict=True)}, pooled


def _narrow(trunk: Backbone, channels: int) -> None:
    """Give a ResNet-18 other channels up to conv2."""
    first = trunk.layer2[0]
    assert isinstance(first, BasicBlock)
    wide = first.conv1.out_channels
    trunk.conv1, trunk.bn1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(channels)
    trunk.layer1 = nn.Sequential(*(BasicBlock(channels, channels) for _ in trunk.layer1))
    beside = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=2, bias=False), nn.BatchNorm2d(wide))
    trunk.layer2[0] = BasicBlock(channels, wide, stride=2, downsample=beside)
    for part in (trunk.conv1, *trunk.layer1.modules(), *trunk.layer2[0].modules()):
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _dilated(channels: int) -> BasicBlock:
    block = BasicBlock(channels, channels)
    for conv in (block.conv1, block.conv2):  # torchvision's takes no dilation
        conv.dilation = conv.padding = (2, 2)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    assert isinstance(block.bn2, nn.BatchNorm2d)
    nn.init.zeros_(block.bn2.weight)  # it begins by changing nothing
    return block


def _conv(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())


class SmallFCOS(FCOS):
    """torchvision's FCOS with its own losses; its classes are 1..C."""

    backbone: Maps

    def __init__(self, config: RDNConfig, fcos: FCOSConfig) -> None:
        """Draw its weights.

        Args:
            config: class names, input and backbone; what is said of proposals and relations is not looked at.
            fcos: what stands on the backbone.
        """
        channels, logits = fcos.channels, config.num_logits
        head = FCOSHead(channels, 1, logits, 0)
        head.classification_head = FCOSClassificationHead(channels, 1, logits, fcos.convs, norm_layer=nn.BatchNorm2d)
        head.regression_head = FCOSRegressionHead(channels, 1, fcos.convs, norm_layer=nn.BatchNorm2d)
        assert head.regression_head.bbox_reg.bias is not None
        nn.init.constant_(head.regression_head.bbox_reg.bias, _FIRST_SIDE)
        sizes = tuple((stride,) for stride in fcos.strides)
        mean, std = ([x / 255 for x in part] for part in (config.input.mean, config.input.std))
        cells = AnchorGenerator(sizes, ((1.0,),) * len(sizes))  # type: ignore[no-untyped-call]
        super().__init__(
            Maps(config, fcos), logits, image_mean=mean, image_std=std, head=head, score_thresh=1e-3,
            nms_thresh=config.detection.nms_threshold, anchor_generator=cells,
        )  # fmt: skip
        self.config, self.fcos = config, fcos

    def predict(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """What the head says of every cell, and the map for features.

        Args:
            images: [B, 3, H, W] normalised network inputs.

        Returns:
            cls_logits [B, A, C + 1], bbox_regression [B, A, 4] and bbox_ctrness [B, A, 1], level after level; the map
            [B, map_channels, H / 16, W / 16], None without `map_channels`.
        """
        levels, pooled = self.backbone.both(images)
        found: dict[str, Tensor] = self.head(list(levels.values()))
        return found, pooled

    def cells(self, images: Tensor) -> tuple[list[Tensor], list[int]]:
        """The squares of the cells.

        Args:
            images: [B, 3, H, W].

        Returns:
            [A, 4] of each image, edges in pixels, and how many each level has.
        """
        grids = [tuple(-(-side // stride) for side in images.shape[-2:]) for stride in self.fcos.strides]
        maps = [images.new_empty(len(images), 1, *grid) for grid in grids]
        height, width = images.shape[-2:]
        listed = ImageList(images, [(height, width)] * len(images))
        return self.anchor_generator(listed, maps), [rows * columns for rows, columns in grids]

    def candidates(self, images: Tensor, found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes and scores of every cell, as the exported graph gives them.

        Args:
            images: [B, 3, H, W] that were looked at.
            found: what `predict` says of them.

        Returns:
            [B, A, 4] in network-input pixels, the last pixel included, and [B, A, C] in 0..1 without a background.
        """
        anchors = self.cells(images)[0]
        codes = found["bbox_regression"]
        corners = torch.stack([self.box_coder.decode(c, a) for c, a in zip(codes, anchors, strict=True)])
        scores = (found["cls_logits"].sigmoid() * found["bbox_ctrness"].sigmoid()).sqrt()
        return corners - corners.new_tensor([0, 0, 1, 1]), scores[..., 1:]

    @torch.no_grad()
    def detect(self, frame: NDArray[np.uint8]) -> FrameBoxes:
        """What it finds in a frame, by torchvision's own choice of boxes.

        Args:
            frame: uint8 [H, W, 3] RGB.
        """
        network = preprocess.network_input(frame, self.config.input, 1)
        images = torch.from_numpy(network)[None].to(next(self.parameters()).device)
        anchors, counts = self.cells(images)
        parts = {name: list(found.split(counts, 1)) for name, found in self.predict(images)[0].items()}
        size = self.config.input.image_size(*frame.shape[:2])
        levels = [list(anchors[0].split(counts))]
        (found,) = self.postprocess_detections(parts, levels, [size])
        boxes = (found["boxes"] - found["boxes"].new_tensor([0, 0, 1, 1])).cpu().numpy()
        on_frame = torch.from_numpy(self.config.input.on_frame(boxes, *frame.shape[:2]))
        return FrameBoxes(on_frame, found["scores"].cpu(), found["labels"].cpu() - 1)
