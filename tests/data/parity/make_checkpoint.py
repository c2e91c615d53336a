"""The parity checkpoint from its seeds, in the public RDN layout: {'model': {name: tensor}}.

Small tensors are stored as they are. A large one is standard-normal noise from a Philox stream keyed by
crc32("<seed>/<layer name>"), times a stored scale for each output channel.

    python tests/data/parity/make_checkpoint.py tests/data/parity/weights.npz rdn_parity.pth
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    with np.load(path, allow_pickle=False) as packed:
        seed = int(packed["seed"])
        tensors = {}
        for name, shape in json.loads(str(packed["shapes"])).items():
            if "exact/" + name in packed:
                tensors[name] = torch.from_numpy(packed["exact/" + name])
                continue
            stream = zlib.crc32(f"{seed}/{name.rsplit('.', 1)[0]}".encode())
            noise = np.random.Generator(np.random.Philox(stream)).standard_normal(shape, dtype=np.float32)
            scale = packed["scale/" + name].reshape(-1, *[1] * (len(shape) - 1))
            tensors[name] = torch.from_numpy(noise * scale)
    return tensors


if __name__ == "__main__":
    torch.save({"model": weights(sys.argv[1])}, sys.argv[2])
