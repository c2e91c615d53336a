"""Large synthetic weights drawn from a seed, the same bits everywhere, so that their files need not travel.

    python benchmarks/frame/seeded.py PACKED DIRECTORY

A drawn weight is whole numbers of 16 bits times one factor. numpy promises the raw stream of a bit generator for good,
and that of no distribution; the factor has few enough bits for every product to be exact. `packing.py` writes the
folder PACKED: of each file of a model what is no drawn weight, and how each drawn weight got into it. The files come
out as they were, by their SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from training.arguments import given_path

LEAST = 2**15
"""Elements: what is smaller is not drawn, and travels as it is."""
FACTOR_BITS = 8
"""With 16 of a whole number they are the 24 that float32 holds."""
RECIPES, LITERALS, SCALES = "recipes.json", "literals.zlib", "scales.npz"

Change = Literal["as drawn", "rows scaled", "cells last to first", "transposed"]
Codes = NDArray[np.int16]


def is_drawn(shape: Sequence[int]) -> bool:
    """Whether a weight of this shape is drawn."""
    return len(shape) >= 2 and math.prod(shape) >= LEAST


def codes(name: str, shape: Sequence[int], seed: int) -> Codes:
    """Whole numbers in -32768..32767, all as likely; other ones for each name and seed."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = np.random.PCG64(int.from_bytes(digest[:16], "little"))
    count = math.prod(shape)
    return generator.random_raw(-(-count // 4)).astype("<u8").view("<i2")[:count].reshape(shape)


def factor(deviation: float) -> float:
    """The factor with which codes deviate by nearly that, rounded to FACTOR_BITS."""
    mantissa, exponent = math.frexp(deviation * math.sqrt(3) / 2**15)
    return math.ldexp(round(math.ldexp(mantissa, FACTOR_BITS)), exponent - FACTOR_BITS)


def weights(name: str, shape: Sequence[int], seed: int, scale: float) -> NDArray[np.float32]:
    """The drawn weight itself; exact where `scale` is a `factor`."""
    return codes(name, shape, seed) * np.float32(scale)


@dataclass(frozen=True)
class Drawn:
    """How the bytes of a tensor come from a drawn weight."""

    name: str
    """of the weight in the checkpoint"""
    shape: tuple[int, ...]
    factor: float
    change: Change = "as drawn"
    """rows scaled: each output channel by its own number, in float64; cells last to first: of an FC behind RoI pooling
    [n, C * cells], to [n, cells * C] with zeros behind"""
    dtype: Literal["float32", "float16"] = "float32"
    argument: str | int | None = None
    """rows scaled: name in SCALES; cells last to first: how many cells"""
    width: int | None = None
    """cells last to first: of a row, with its zeros"""

    def tensor(self, seed: int, scales: dict[str, NDArray[np.float64]]) -> NDArray[Any]:
        exact = weights(self.name, self.shape, seed, self.factor)
        if self.change == "rows scaled":
            rows = scales[str(self.argument)].reshape(-1, *[1] * (len(self.shape) - 1))
            exact = (exact * rows).astype(np.float32)
        elif self.change == "cells last to first":
            cells = int(self.argument or 0)
            exact = exact.reshape(len(exact), -1, cells).swapaxes(1, 2).reshape(len(exact), -1)
            exact = np.pad(exact, ((0, 0), (0, (self.width or exact.shape[1]) - exact.shape[1])))
        elif self.change == "transposed":
            exact = exact.T
        return np.ascontiguousarray(exact, self.dtype)


Part = int | Drawn
"""So many bytes of the literals, or a tensor"""


@dataclass(frozen=True)
class Recipe:
    """One file, in parts that follow each other."""

    path: str
    sha256: str
    parts: tuple[Part, ...]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"parts": [p if isinstance(p, int) else asdict(p) for p in self.parts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        parts = tuple(p if isinstance(p, int) else Drawn(**p | {"shape": tuple(p["shape"])}) for p in data["parts"])
        return cls(**data | {"parts": parts})


def unpack(packed: Path, directory: Path) -> list[Path]:
    """Write the files of a packed model.

    Args:
        packed: folder that `packing.py` wrote.
        directory: where they go; what is there already is written again.

    Returns:
        The files.

    Raises:
        SystemExit: a file has not the bytes that it had when it was packed.
    """
    told = json.loads((packed / RECIPES).read_text())
    literals = memoryview(zlib.decompress((packed / LITERALS).read_bytes()))
    with np.load(packed / SCALES) as archive:
        scales = dict(archive)
    written, at = [], 0
    for recipe in map(Recipe.from_dict, told["files"]):
        path = directory / recipe.path
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for part in recipe.parts:
                if isinstance(part, int):
                    block, at = literals[at : at + part], at + part
                else:
                    block = part.tensor(told["seed"], scales).reshape(-1).view(np.uint8).data
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != recipe.sha256:
            path.unlink()
            raise SystemExit(f"{path} came out with SHA-256 {digest.hexdigest()}; wanted {recipe.sha256}")
        written.append(path)
    return written


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packed", type=given_path, help="folder that packing.py wrote")
    parser.add_argument("directory", type=given_path, help="where the model goes")
    arguments = parser.parse_args(argv)
    for path in unpack(arguments.packed, arguments.directory):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
