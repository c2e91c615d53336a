#!/usr/bin/env bash
# A session waits for ever where the system gives ONNX Runtime some threads of its pool, and not all.
#
# Seen with: onnxruntime 1.32.0, onnx 1.23.2, Python 3.11, Linux x86-64.
# Behaviour: `InferenceSession` with intra_op_num_threads = 4 starts 3 threads. Where the limit on the user's threads
#   (ulimit -u; a container's pids limit does the same) leaves none of them, it raises RuntimeError "pthread_create
#   failed". Where it leaves one or two, the error is never raised: the constructor waits for the threads it did get, and
#   does not return. Where it leaves all three, the session opens.
# A user of video object detection opens several models, each with a pool of its own, in a container that is limited: the
#   service then neither starts nor fails. Starting and ending as many threads first, as a question, is an answer.
# Output seen:
#   room for 0 of 3 threads: RuntimeError
#   room for 1 of 3 threads: no answer in 20 s
#   room for 2 of 3 threads: no answer in 20 s
#   room for 3 of 3 threads: opens
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy
export ORT_DISABLE_TELEMETRY=1
cat > opens.py <<'PROGRAM'
"""Opens a session of 4 threads where the system has room for so many more."""

import os
import resource
import sys
from pathlib import Path

import numpy  # noqa: F401  its own threads are there before the limit is
import onnxruntime as ort
from onnx import TensorProto, helper

room = int(sys.argv[1])
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", values[:1], values[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
options = ort.SessionOptions()
options.intra_op_num_threads = 4
if os.getuid() == 0:  # whom the limit does not hold
    os.setgid(64123)
    os.setuid(64123)


def owned(folder: Path) -> int:
    try:
        return len(list((folder / "task").iterdir())) if folder.stat().st_uid == os.getuid() else 0
    except OSError:  # ended, or another's
        return 0


there = sum(owned(folder) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
resource.setrlimit(resource.RLIMIT_NPROC, (there + room, there + room))
try:
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    print("opens", flush=True)
except RuntimeError as error:
    assert "pthread_create failed" in str(error)
    print("RuntimeError", flush=True)
os._exit(0)
PROGRAM
venv/bin/python - <<'PROGRAM'
import subprocess
import sys

found = []
for room in range(4):
    command = [sys.executable, "opens.py", str(room)]
    try:
        found.append(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip())
    except subprocess.TimeoutExpired:
        found.append("no answer in 20 s")
    print(f"room for {room} of 3 threads: {found[-1]}")
assert found == ["RuntimeError", "no answer in 20 s", "no answer in 20 s", "opens"]
PROGRAM
