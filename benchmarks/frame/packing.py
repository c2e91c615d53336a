"""A model of models.py in a folder of a few megabytes, from which seeded.py writes the same files again.

    python benchmarks/frame/packing.py engines/r101 PACKED --precision fp16 [--seed 0]

In every file each large tensor is looked for among what becomes of the checkpoint's drawn weights: as they are, with
norms folded in, in another order, in float16. What is not found travels as it is, and is named.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import onnx
import safetensors.numpy
from numpy.typing import NDArray

from benchmarks.frame.seeded import LITERALS, RECIPES, SCALES, Drawn, Part, Recipe, codes, is_drawn
from rdn_engine.kernels.cpu.boxes import pooled_width
from training.arguments import given_path
from training.checkpoints.files import load_checkpoint

Weights = Mapping[str, NDArray[Any]]
Span = tuple[int, int]
"""First byte of a tensor in its file, and the byte behind its last"""

NORMS = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "downsample.0": "downsample.1"}
"""Convolution -> the norm that export folds into it"""


def drawn_weights(checkpoint: Weights, seed: int) -> Iterator[Drawn]:
    """The weights of a checkpoint that were drawn.

    Raises:
        SystemExit: one was not, or from another seed.
    """
    for name, array in checkpoint.items():
        if not is_drawn(array.shape):
            continue
        whole = codes(name, array.shape, seed)
        place = np.flatnonzero(whole)[0]
        scale = float(array.reshape(-1)[place]) / int(whole.reshape(-1)[place])
        if not np.array_equal(whole * np.float32(scale), array):
            raise SystemExit(f"{name} was not drawn from seed {seed}; wanted a checkpoint that models.py wrote")
        yield Drawn(name, tuple(array.shape), scale)


def fold_scales(checkpoint: Weights, eps: float) -> dict[str, NDArray[np.float64]]:
    """Name of a convolution's weight -> what export multiplies its output channels by."""
    found = {}
    for name in checkpoint:
        stem = name.removesuffix(".weight")
        for conv, norm in NORMS.items():
            if stem.endswith(f".{conv}") and f"{stem.removesuffix(conv)}{norm}.running_var" in checkpoint:
                of = f"{stem.removesuffix(conv)}{norm}"
                weight, var = (checkpoint[f"{of}.{part}"].astype(np.float64) for part in ("weight", "running_var"))
                found[name] = weight / np.sqrt(var + eps)
    return found


def candidates(drawn: Drawn, scales: Mapping[str, Any], size: int) -> Iterator[Drawn]:
    """Everything that a file may hold of a weight; size: of a side of the pooled grid, in cells."""
    changed = [drawn]
    if drawn.name in scales:
        changed.append(replace(drawn, change="rows scaled", argument=drawn.name))
    if len(drawn.shape) == 2:
        changed.append(replace(drawn, change="transposed"))
        channels, rest = divmod(drawn.shape[1], size * size)
        if not rest:
            width = pooled_width(size, channels)
            changed.append(replace(drawn, change="cells last to first", argument=size * size, width=width))
    for one in changed:
        yield from (one, replace(one, dtype="float16"))


def spans(path: Path, content: bytes) -> list[Span]:
    """Where the large tensors of a file lie, in order."""
    find = {".safetensors": _safetensors_spans, ".onnx": _onnx_spans, ".npz": _npz_spans}.get(path.suffix)
    return sorted(find(content)) if find else []


def _safetensors_spans(content: bytes) -> Iterator[Span]:
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    for name, told in header.items():
        if name != "__metadata__" and is_drawn(told["shape"]):
            begin, end = told["data_offsets"]
            yield start + begin, start + end


def _onnx_spans(content: bytes) -> Iterator[Span]:
    at = 0
    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if is_drawn(tensor.dims):
            at = content.index(tensor.raw_data, at)
            yield at, at + len(tensor.raw_data)
            at += len(tensor.raw_data)


def _npz_spans(content: bytes) -> Iterator[Span]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.compress_type == zipfile.ZIP_STORED and len(data) > 100:
                start = content.index(data, entry.header_offset)
                array = np.load(io.BytesIO(data), allow_pickle=False)
                if is_drawn(array.shape):
                    yield start + len(data) - array.nbytes, start + len(data)


def pack(model: Path, packed: Path, precision: str, seed: int) -> list[str]:
    """Write the packed form of a checkpoint and of an engine directory beside it.

    Args:
        model: the folder that models.py wrote.
        packed: folder to write.
        precision: of the engine directory.
        seed: that the checkpoint was drawn from.

    Returns:
        The large tensors that travel as they are: file and bytes.
    """
    source = model / "model.safetensors"
    checkpoint: Weights = safetensors.numpy.load_file(source)
    config = load_checkpoint(source).config
    scales = fold_scales(checkpoint, config.backbone.norm_eps)
    known: dict[bytes, Drawn] = {}
    for drawn in drawn_weights(checkpoint, seed):
        for one in candidates(drawn, scales, config.roi.size):
            known.setdefault(hashlib.sha256(one.tensor(seed, scales).data).digest(), one)
    literals, recipes, missed, used = [], [], [], set()
    for path in (source, *sorted((model / precision).iterdir())):
        content, parts, at = path.read_bytes(), list[Part](), 0
        for begin, end in spans(path, content):
            found = known.get(hashlib.sha256(memoryview(content)[begin:end]).digest())
            if found is None:
                missed.append(f"{path.name}: {end - begin} bytes")
                continue
            literals.append(content[at:begin])
            parts += [begin - at, found]
            at = end
            if found.change == "rows scaled":
                used.add(found.name)
        literals.append(content[at:])
        parts.append(len(content) - at)
        name = str(path.relative_to(model))
        recipes.append(Recipe(name, hashlib.sha256(content).hexdigest(), tuple(parts)).to_dict())
    packed.mkdir(parents=True, exist_ok=True)
    (packed / RECIPES).write_text(json.dumps({"seed": seed, "files": recipes}) + "\n")
    (packed / LITERALS).write_bytes(zlib.compress(b"".join(literals), 9))
    np.savez_compressed(packed / SCALES, **{name: scales[name] for name in sorted(used)})  # type: ignore[arg-type]
    return missed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=given_path, help="folder that models.py wrote")
    parser.add_argument("packed", type=given_path, help="folder to write")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    for one in pack(arguments.model, arguments.packed, arguments.precision, arguments.seed):
        print(f"travels as it is: {one}")
    size = sum(path.stat().st_size for path in arguments.packed.iterdir())
    print(f"{arguments.packed}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
