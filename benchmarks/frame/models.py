"""Models of the paper's size with synthetic weights, for measurements of speed and memory: they detect nothing useful.

    python benchmarks/frame/models.py engines/r101 --reduce-channels 256

A network with freshly drawn weights is no stand-in for a trained one: its activations grow from block to block and its
scores are all alike, so that INT8 scales, denormals, suppression and top-n would be timed on inputs that no model has.
Hence rendered frames are run through the freshly drawn detector, and on their way each norm takes the statistics of
what reaches it, and each other layer is scaled so that its output deviates by what a trained detector shows
(`DEVIATIONS`). Large weights can be drawn again from the seed anywhere (`seeded.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.frame import seeded
from export.build_engines import build
from export.calibration import DEFAULT_FRAMES
from export.half import HALVES
from export.reduced import Reduced
from rdn_engine.bundle.manifest import PRECISIONS
from rdn_engine.config import Backbone, RDNConfig
from training.arguments import given_path
from training.checkpoints.files import read_config, save_checkpoint
from training.data.synthetic import render_video
from training.model.inference import detect_video, to_input
from training.model.rdn import RDN
from training.model.relation import RelationStage

Precision = Literal["float32", "fp16", "bf16", "int8", "fp8"]

PUBLIC_R101 = Path(__file__).resolve().parents[2] / "export" / "configs" / "public_r101.yaml"

DEVIATIONS = {
    "rpn.conv": 1.0,
    "rpn.objectness": 1.0,
    "rpn.deltas": 0.3,
    "roi.reduce": 1.0,
    "roi.fc": 1.0,
    "query": 1.0,
    "key": 1.0,
    "value": 1.0,
    "geometry": 1.0,
    "basic_fc": 1.0,
    "advanced_fc": 1.0,
    "classify": 2.0,
    "regress": 1.0,
}
"""Standard deviation of a layer's output, by a part of the layer's name. Queries and keys of 1 make the attention
logits q.k / 8 deviate by 1."""
RESIDUAL_GAIN = 0.3
"""Weight of the last norm of a residual branch. At 1, the 33 branches of a ResNet-101 amplify rounding as no trained
network does."""
STATISTICS_FRAMES = 3  # each of another clip
CALIBRATION_FRAMES = 12  # rendered, for INT8 and FP8
HALF_FRAMES = 2  # of them
FRAME_SIZE = 1000, 600
"""(width, height) of `frames`, pixels: the network input of the public configuration, so that nothing is resized"""


def r101_config(
    reduce_channels: int | None = None, backbone: Backbone = "resnet101", num_basic: int = 2, advanced: bool = True
) -> RDNConfig:
    """The public checkpoints' configuration: 600 x 1000, 30 classes, T = 18, K = 75, N = 300, r = 20%, N_b = 2.

    reduce_channels: of the 1x1 convolution in front of RoI pooling; None pools the 2048 channels of conv5, for which
    the FC behind has 100,352 inputs.
    """
    config = RDNConfig.from_dict(read_config(PUBLIC_R101))
    return replace(
        config,
        backbone=replace(config.backbone, name=backbone),
        roi=replace(config.roi, reduce_channels=reduce_channels),
        relation=replace(config.relation, num_basic=num_basic, advanced=advanced),
    )


def frames(count: int, seed: int = 0, size: tuple[int, int] = FRAME_SIZE) -> NDArray[np.uint8]:
    """A rendered clip, uint8 [count, H, W, 3] RGB; size is (width, height)."""
    return render_video(np.random.default_rng([seed, 101]), count, *size).frames


def draw_relation(stage: RelationStage) -> None:
    """Draws what a new stage begins without, its values and FCs: here every weight should count."""
    for module in stage.rel:
        nn.init.xavier_uniform_(module.value.weight)
    for fc in (*stage.basic_fc, stage.advanced_fc):
        if fc is not None:
            nn.init.kaiming_uniform_(fc.weight, nonlinearity="relu")


@torch.no_grad()
def write_checkpoint(path: Path, config: RDNConfig, seed: int = 0) -> None:
    """A safetensors checkpoint of `config` with synthetic weights, the same for the same seed; frozen norms only."""
    torch.manual_seed(seed)
    model = RDN(config).eval()
    draw_relation(model.relation)
    _redraw(model, seed)
    for name, module in model.backbone.named_modules():
        if name.endswith("bn3"):
            nn.init.constant_(module.weight, RESIDUAL_GAIN)
    norms = [module.register_forward_pre_hook(_take_statistics) for module in _norms(model)]
    layers = [module.register_forward_hook(Rescale(deviation)) for module, deviation in scaled(model)]
    clips = [frames(1, seed * STATISTICS_FRAMES + i)[0] for i in range(STATISTICS_FRAMES)]
    model.encode_map(torch.stack([to_input(frame, config.input) for frame in clips]))
    for handle in norms:
        handle.remove()
    # One frame in its own window runs every layer behind the backbone.
    detect_video(model, clips[:1], replace(config.dials, window=0, look_ahead=None))
    for handle in layers:
        handle.remove()
    _redraw(model, seed)
    save_checkpoint(path, model.state_dict(), config)


def _redraw(model: RDN, seed: int) -> None:
    """Large weights as `seeded` draws them, with the deviation that they have."""
    for name, weight in model.named_parameters():
        if seeded.is_drawn(weight.shape):
            drawn = seeded.weights(name, weight.shape, seed, seeded.factor(float(weight.std())))
            weight.copy_(torch.from_numpy(drawn))


def make_r101(
    directory: str | Path,
    *,
    reduce_channels: int | None = None,
    precision: Precision = "float32",
    backbone: Backbone = "resnet101",
    num_basic: int = 2,
    advanced: bool = True,
    seed: int = 0,
) -> Path:
    """An engine directory `directory/<precision>`, built from `directory/model.safetensors`; both are kept if there.

    Takes a few minutes and, without `reduce_channels`, 700 MB of disk. Returns the engine directory. One rendered frame
    stands in for the golden frames. A reduced precision is calibrated on rendered frames; its agreement with float32,
    which means little for synthetic weights, refuses nothing.
    """
    directory = Path(directory)
    checkpoint, output = directory / "model.safetensors", directory / precision
    config = r101_config(reduce_channels, backbone, num_basic, advanced)
    if not checkpoint.exists():
        write_checkpoint(checkpoint, config, seed)
    if not output.exists():
        golden = _write_images(directory / "golden", frames(1, seed + 1))
        reduced = None
        if precision != "float32":
            clip = _write_images(directory / "calibration", frames(CALIBRATION_FRAMES, seed + 2))
            # Half precision is only checked against its range.
            counted = HALF_FRAMES if precision in HALVES else DEFAULT_FRAMES
            reduced = Reduced(precision, clip, counted, accept=True)
        build(checkpoint, output, name=f"{backbone}_synthetic", golden=golden, reduced=reduced)
    return output


def _norms(model: RDN) -> list[FrozenBatchNorm2d]:
    found = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    if not found:
        raise ValueError(f"backbone.norm is {model.config.backbone.norm!r}; wanted 'frozen'")
    return found


def scaled(model: RDN) -> list[tuple[nn.Linear | nn.Conv2d, float]]:
    """Layers of a model whose outputs are to deviate as a trained one's, each with its deviation."""

    def deviation(name: str) -> float | None:
        return next((d for part, d in DEVIATIONS.items() if f".{part}." in f".{name}."), None)

    layers = [(m, deviation(n)) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return [(m, d) for m, d in layers if d is not None]


@torch.no_grad()
def _take_statistics(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    (x,) = inputs
    norm.get_buffer("running_mean").copy_(x.mean((0, 2, 3)))
    # Channels that this frame leaves constant would otherwise be divided by nothing.
    norm.get_buffer("running_var").copy_(x.var((0, 2, 3)).clamp_min(1e-4 * float(x.var())))


class Rescale:
    """A forward hook that scales weight and bias, once, so that the output deviates by `deviation`."""

    def __init__(self, deviation: float) -> None:
        self._deviation = deviation
        self._done = False

    @torch.no_grad()
    def __call__(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if self._done or output.numel() < 2:
            return output
        self._done = True
        scale = self._deviation / max(float(output.std()), 1e-12)
        layer.get_parameter("weight").mul_(scale)
        layer.get_parameter("bias").mul_(scale)
        return output * scale


def _write_images(directory: Path, images: NDArray[np.uint8]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for t, image in enumerate(images):
        Image.fromarray(image).save(directory / f"{t:04}.png")
    return directory


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=given_path)
    parser.add_argument("--reduce-channels", type=int, help="default: none, the FC has 100,352 inputs")
    parser.add_argument("--backbone", choices=["resnet50", "resnet101", "resnext101_64x4d"], default="resnet101")
    parser.add_argument("--num-basic", type=int, default=2, help="N_b, basic relation modules")
    parser.add_argument("--basic-only", action="store_true", help="no advanced stage")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    arguments = parser.parse_args(argv)
    print(
        make_r101(
            arguments.directory,
            reduce_channels=arguments.reduce_channels,
            precision=arguments.precision,
            backbone=arguments.backbone,
            num_basic=arguments.num_basic,
            advanced=not arguments.basic_only,
        )
    )


if __name__ == "__main__":
    main()
