"""A detector of the size of YOLOX-s with synthetic weights, as an ONNX file: it detects nothing useful.

Ge et al., *YOLOX: Exceeding YOLO Series in 2021* (arXiv 2107.08430): a CSP backbone with a focus stem and spatial
pyramid pooling, a path aggregation neck, and a head of two towers a level; depth 0.33, width 0.5, 9 M parameters.
Norms take the statistics of drawn frames, so that activations and scores are spread as a trained network's are.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from benchmarks.frames import make_frame

CLASSES = 80
STRIDES = (8, 16, 32)
OPSET = 18
_STATISTICS_FRAMES = 2
_LOGIT_DEVIATION, _LOGIT_MEAN = 2.0, -3.0


class Conv(nn.Sequential):
    """Convolution, norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, side: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False),
            nn.BatchNorm2d(outputs, momentum=None),  # None: the mean of all that it saw
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, added to what came in."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.inner, self.shortcut = nn.Sequential(Conv(width, width), Conv(width, width, 3)), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross stage partial: half of the channels pass the bottlenecks."""

    def __init__(self, inputs: int, outputs: int, count: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.long = nn.Sequential(Conv(inputs, half), *(Bottleneck(half, shortcut) for _ in range(count)))
        self.short, self.join = Conv(inputs, half), Conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.join(torch.cat([self.long(x), self.short(x)], 1))
        return joined


class SPP(nn.Module):
    """Spatial pyramid pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.join = Conv(width, width // 2), Conv(2 * width, width)
        self.pools = nn.ModuleList(nn.MaxPool2d(side, 1, side // 2) for side in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        joined: Tensor = self.join(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return joined


class Head(nn.Module):
    """Two towers a level."""

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.stems = nn.ModuleList(Conv(w, width) for w in widths)
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(nn.Sequential(Conv(width, width, 3), Conv(width, width, 3)) for _ in widths) for _ in range(2)
        )
        self.cls_preds, self.reg_preds, self.obj_preds = (
            nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in widths) for outputs in (CLASSES, 4, 1)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        rows = []
        for k, x in enumerate(maps):
            x = self.stems[k](x)
            cls, reg = self.cls_convs[k](x), self.reg_convs[k](x)
            parts = [self.reg_preds[k](reg), self.obj_preds[k](reg).sigmoid(), self.cls_preds[k](cls).sigmoid()]
            rows.append(torch.cat(parts, 1).flatten(2))
        return torch.cat(rows, 2).transpose(1, 2)


class YOLOXS(nn.Module):
    """[1, 3, H, W] -> [1, cells, 5 + C], raw: dx, dy, log w, log h, objectness, classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(12, 32, 3)
        self.dark2 = nn.Sequential(Conv(32, 64, 3, 2), CSP(64, 64, 1))
        self.dark3 = nn.Sequential(Conv(64, 128, 3, 2), CSP(128, 128, 3))
        self.dark4 = nn.Sequential(Conv(128, 256, 3, 2), CSP(256, 256, 3))
        self.dark5 = nn.Sequential(Conv(256, 512, 3, 2), SPP(512), CSP(512, 512, 1, False))
        self.lateral5, self.down5 = Conv(512, 256), CSP(512, 256, 1, False)
        self.lateral4, self.down4 = Conv(256, 128), CSP(256, 128, 1, False)
        self.up3, self.join3 = Conv(128, 128, 3, 2), CSP(256, 256, 1, False)
        self.up4, self.join4 = Conv(256, 256, 3, 2), CSP(512, 512, 1, False)
        self.head = Head((128, 256, 512), 128)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, images: Tensor) -> Tensor:
        corners = [images[..., y::2, x::2] for x in (0, 1) for y in (0, 1)]
        c3 = self.dark3(self.dark2(self.stem(torch.cat(corners, 1))))
        c4 = self.dark4(c3)
        p5 = self.lateral5(self.dark5(c4))
        p4 = self.lateral4(self.down5(torch.cat([self.enlarge(p5), c4], 1)))
        first = self.down4(torch.cat([self.enlarge(p4), c3], 1))
        second = self.join3(torch.cat([self.up3(first), p4], 1))
        third = self.join4(torch.cat([self.up4(second), p5], 1))
        found: Tensor = self.head([first, second, third])
        return found


@torch.no_grad()
def make_yolox_s(path: Path, side: int = 576, seed: int = 0) -> int:
    """Write the ONNX file.

    Args:
        path: of the file.
        side: of the square network input, pixels, a multiple of 32.
        seed: of the weights.

    Returns:
        How many parameters it has.
    """
    torch.manual_seed(seed)
    model = YOLOXS()
    images = torch.stack(
        [
            torch.from_numpy(make_frame(t, (side, side))).flip(-1).permute(2, 0, 1).float()
            for t in range(_STATISTICS_FRAMES)
        ]
    )
    model.train()(images)
    model.eval()
    for kind, mean, deviation in (
        ("cls", _LOGIT_MEAN, _LOGIT_DEVIATION),
        ("obj", 0.0, _LOGIT_DEVIATION),
        ("reg", 0.0, 0.5),
    ):
        for layer in getattr(model.head, f"{kind}_preds"):
            layer.register_forward_hook(_Spread(mean, deviation))
    model(images)
    for module in model.modules():
        module._forward_hooks.clear()
    program = torch.onnx.export(
        model, (images[:1],), input_names=["images"], output_names=["output"], opset_version=OPSET, dynamo=True,
        verbose=False,
    )  # fmt: skip
    assert program is not None
    onnx.save(program.model_proto, path)
    return sum(p.numel() for p in model.parameters())


class _Spread:
    """A forward hook that gives a layer's output a mean and a deviation."""

    def __init__(self, mean: float, deviation: float) -> None:
        self._mean, self._deviation = mean, deviation

    @torch.no_grad()
    def __call__(self, layer: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        scale = self._deviation / float(output.std())
        assert layer.bias is not None
        layer.weight.mul_(scale)
        layer.bias.copy_((layer.bias - output.mean()) * scale + self._mean)
