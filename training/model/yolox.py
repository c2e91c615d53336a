"""YOLOX as YOLOV has it: CSPDarknet, PAFPN, a decoupled head with two towers more than the detector needs.

Ge et al., YOLOX, 2021; Shi et al., YOLOV, AAAI 2023. Modules have the names of the public checkpoints, so that those
load as they are. Widths and depths from -nano to -x, without its depthwise convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

STRIDES = (8, 16, 32)
"""Pixels of the network input from one cell of a level to the next."""
NORM_EPS = 1e-3
"""Added to the variance of every batch norm; no tensor of a checkpoint tells it."""


@dataclass(frozen=True)
class YOLOXSize:
    """What tells the -s from the -x."""

    stem: int
    """Channels of the stem, 64 times the width: 32 for -s, 64 for -l, 80 for -x"""
    depth: int
    """Bottlenecks of the shallowest stage, 3 times the depth factor: 1 for -s, 3 for -l, 4 for -x"""
    classes: int
    """C"""

    @property
    def dim(self) -> int:
        """D: channels of the towers of the head."""
        return 4 * self.stem


class Conv(nn.Module):
    """A convolution without a bias, a batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.bn(self.conv(x)))


class Stem(nn.Module):
    """The four pixels of each 2x2 block beside each other, then a convolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(12, outputs, 3)

    def forward(self, image: Tensor) -> Tensor:
        phases = [image[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        found: Tensor = self.conv(torch.cat(phases, 1))
        return found


class Bottleneck(nn.Module):
    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = Conv(channels, channels, 1)
        self.conv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Two halves of the outputs, one of them through bottlenecks."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2 = Conv(inputs, half, 1), Conv(inputs, half, 1)
        self.conv3 = Conv(2 * half, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))
        return found


class SPP(nn.Module):
    """The largest of windows of three sizes, beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(channels, channels // 2, 1), Conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        found: Tensor = self.conv2(
            torch.cat([x, *(nn.functional.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13))], 1)
        )
        return found


class CSPDarknet(nn.Module):
    def __init__(self, stem: int, depth: int) -> None:
        super().__init__()
        self.stem = Stem(stem)
        for stage, bottlenecks in zip((2, 3, 4, 5), (depth, 3 * depth, 3 * depth, depth), strict=True):
            inputs, outputs = stem * 2 ** (stage - 2), stem * 2 ** (stage - 1)
            pooled = [SPP(outputs)] if stage == 5 else []
            csp = CSP(outputs, outputs, bottlenecks, shortcut=stage < 5)
            setattr(self, f"dark{stage}", nn.Sequential(Conv(inputs, outputs, 3, 2), *pooled, csp))

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: [B, 3, h, w] -> maps at strides 8, 16 and 32."""
        x, maps = self.stem(image), []
        for stage in (2, 3, 4, 5):
            x = getattr(self, f"dark{stage}")(x)
            maps.append(x)
        return maps[1:]


class PAFPN(nn.Module):
    """From the deep maps up to the fine ones, and down again."""

    def __init__(self, stem: int, depth: int) -> None:
        super().__init__()
        low, mid, high = 4 * stem, 8 * stem, 16 * stem
        self.backbone = CSPDarknet(stem, depth)
        self.lateral_conv0 = Conv(high, mid, 1)
        self.C3_p4 = CSP(2 * mid, mid, depth, shortcut=False)
        self.reduce_conv1 = Conv(mid, low, 1)
        self.C3_p3 = CSP(2 * low, low, depth, shortcut=False)
        self.bu_conv2 = Conv(low, low, 3, 2)
        self.C3_n3 = CSP(2 * low, mid, depth, shortcut=False)
        self.bu_conv1 = Conv(mid, mid, 3, 2)
        self.C3_n4 = CSP(2 * mid, high, depth, shortcut=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image: [B, 3, h, w] -> maps at strides 8, 16 and 32."""
        dark3, dark4, dark5 = self.backbone(image)
        p5 = self.lateral_conv0(dark5)
        p4 = self.reduce_conv1(self.C3_p4(torch.cat([_doubled(p5), dark4], 1)))
        fine = self.C3_p3(torch.cat([_doubled(p4), dark3], 1))
        middle = self.C3_n3(torch.cat([self.bu_conv2(fine), p4], 1))
        coarse = self.C3_n4(torch.cat([self.bu_conv1(middle), p5], 1))
        return [fine, middle, coarse]


def _doubled(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


@dataclass(frozen=True)
class Anchors:
    """What the head says of every anchor of B images, level after level, within a level row after row."""

    boxes: Tensor
    """[B, A, 4] x1, y1, x2, y2 in pixels of the network input: edges, a side is x2 - x1"""
    objectness: Tensor
    """[B, A] in 0..1"""
    class_scores: Tensor
    """[B, A, C] in 0..1, of each class by itself"""
    features: Tensor
    """[B, A, D] of the class branch of the relations"""
    features_reg: Tensor
    """[B, A, D] of the box branch"""


class Head(nn.Module):
    """The towers; a subclass adds what relates proposals."""

    def __init__(self, size: YOLOXSize) -> None:
        super().__init__()
        dim = size.dim
        self.stems = nn.ModuleList(Conv(size.stem * 2 ** (k + 2), dim, 1) for k in range(3))
        for tower in ("cls_convs", "reg_convs", "cls_convs2"):
            levels = [nn.Sequential(Conv(dim, dim, 3), Conv(dim, dim, 3)) for _ in STRIDES]
            setattr(self, tower, nn.ModuleList(levels))
        for name, outputs in (("cls", size.classes), ("reg", 4), ("obj", 1)):
            setattr(self, f"{name}_preds", nn.ModuleList(nn.Conv2d(dim, outputs, 1) for _ in STRIDES))

    def anchors(self, maps: list[Tensor]) -> Anchors:
        """The still detector, and the features of the relations.

        Args:
            maps: of the neck, at STRIDES.

        Returns:
            Every anchor.
        """
        levels = []
        for k, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
            x = self.stems[k](x)
            classes, regression = (getattr(self, tower)[k](x) for tower in ("cls_convs", "reg_convs"))
            found = (
                _decoded(self.reg_preds[k](regression), stride),  # type: ignore[index, operator]
                self.obj_preds[k](regression).sigmoid(),  # type: ignore[index, operator]
                self.cls_preds[k](classes).sigmoid(),  # type: ignore[index, operator]
                self.cls_convs2[k](x),  # type: ignore[index, operator]
                regression,
            )
            levels.append([part.flatten(2) for part in found])
        parts = [torch.cat(level, 2).transpose(1, 2) for level in zip(*levels, strict=True)]
        return Anchors(parts[0], parts[1].squeeze(2), *parts[2:])


def _decoded(raw: Tensor, stride: int) -> Tensor:
    """Corners from the offsets of the centre, in cells, and the logarithms of the sides. raw: [B, 4, h, w]."""
    rows, columns = (torch.arange(n, dtype=raw.dtype, device=raw.device) for n in raw.shape[2:])
    x = (raw[:, 0] + columns) * stride
    y = (raw[:, 1] + rows[:, None]) * stride
    half_width, half_height = raw[:, 2].exp() * (stride / 2), raw[:, 3].exp() * (stride / 2)
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)
