#!/usr/bin/env bash
# The same tensors and the same metadata, saved twice by safetensors, are two different files.
#
# Seen with: safetensors 0.8.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: metadata is written in the order of a hash map with a new seed each time, within one process too. Without
#   metadata, or with a single entry, the bytes are the same. What is read back is equal in any case.
# A user of video object detection pins a detector's weights by checksum, or lets a build skip what has not changed:
#   a checkpoint that carries its settings in its metadata is another one at every save.
# Output seen:
#   no metadata: 1 file of 20 saves
#   8 entries: more than 1 file of 20 saves; equal when read: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet safetensors==0.8.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save, save_file

tensors = {f"layer{number}": np.full(3, number, np.float32) for number in range(8)}
metadata = {f"setting{number}": str(number) for number in range(8)}
plain = {save(tensors) for _ in range(20)}
described = {save(tensors, metadata) for _ in range(20)}
equal = True
for _ in range(2):
    save_file(tensors, "weights.safetensors", metadata)
    with safe_open("weights.safetensors", "numpy") as file:
        equal = equal and file.metadata() == metadata
equal = equal and all(
    np.array_equal(value, tensors[name]) for data in described for name, value in load(data).items()
)
print(f"no metadata: {len(plain)} file of 20 saves")
print(f"8 entries: {'more than 1' if len(described) > 1 else 1} file of 20 saves; equal when read: {equal}")
assert len(plain) == 1 and len(described) > 1 and equal
PROGRAM
