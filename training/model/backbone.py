"""ResNet and ResNeXt from torchvision's blocks, conv5 at stride 1 with dilation 2 (DESIGN section 2)."""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from rdn_engine.config import BackboneConfig

# block, blocks per stage, groups, width per group
_ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...], int, int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnext101_64x4d": (Bottleneck, (3, 4, 23, 3), 64, 4),
}


def _norm(config: BackboneConfig, channels: int) -> nn.Module:
    if config.norm == "frozen":
        return FrozenBatchNorm2d(channels, eps=config.norm_eps)
    if config.norm == "batch":
        return nn.BatchNorm2d(channels, eps=config.norm_eps)
    return nn.GroupNorm(math.gcd(32, channels), channels, eps=config.norm_eps)


class Backbone(nn.Module):
    """Parameters are named as in torchvision's ResNet, so that its state dicts load."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        block, counts, groups, group_width = _ARCHITECTURES[config.name]
        stem = int(64 * config.width)
        norm = partial(_norm, config)
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inplanes = stem
        for i, count in enumerate(counts):
            planes, stride = stem * 2**i, (1, 2, 2, 1)[i]
            blocks: list[nn.Module] = []
            for j in range(count):
                first = j == 0
                outplanes = planes * block.expansion
                downsample = None
                if first and (stride != 1 or inplanes != outplanes):
                    downsample = nn.Sequential(
                        nn.Conv2d(inplanes, outplanes, 1, stride=stride, bias=False), norm(outplanes)
                    )
                blocks.append(block(inplanes, planes, stride if first else 1, downsample, groups, group_width, 1, norm))
                inplanes = outplanes
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.c4_channels, self.c5_channels = inplanes // 2, inplanes
        self._frozen: list[nn.Module] = []
        self._move_strides()
        self._dilate_conv5()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _move_strides(self) -> None:
        """torchvision strides in the 3x3 convolution, the public checkpoints in the first 1x1."""
        if not self.config.stride_in_1x1:
            return
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)

    def _dilate_conv5(self) -> None:
        # After construction, because torchvision's BasicBlock takes no dilation.
        for module in self.layer4.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = module.padding = (2, 2)

    def freeze(self, stages: int) -> None:
        """Leaves the first stages out of training.

        Args:
            stages: how many, 0..5; stage 1 is the stem, 2 is layer1, 5 is layer4.
        """
        stem = nn.ModuleList([self.conv1, self.bn1])
        self._frozen = [stem, self.layer1, self.layer2, self.layer3, self.layer4][:stages]
        for stage in self._frozen:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As nn.Module; the statistics of frozen stages stay as they are."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of conv4, for region proposals, and of conv5, for RoI features.

        Args:
            images: [B, 3, H, W] normalised network inputs.

        Returns:
            conv4 [B, C4, H/16, W/16] and conv5 [B, C5, H/16, W/16], sides rounded up.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        c4 = self.layer3(self.layer2(self.layer1(x)))
        return c4, self.layer4(c4)
