#!/usr/bin/env bash
# A Triton server whose Python model has lost its process says for ever that it is ready, and never starts it again.
#
# Seen with: Triton 2.51.0 of the nvidia-pytriton 0.7.0 wheel, tritonclient 2.73.0, numpy 1.26.4, Python 3.11, Linux
#   x86-64, no GPU.
# Behaviour: the process of a Python model is killed, as the kernel does where memory ends. From then on every request gets
#   INTERNAL "Stub process is not healthy". The server is live and ready, and so is the model, a minute later too. Started
#   with --model-control-mode=explicit, `load_model` brings the model back.
# A user of video object detection who lets an orchestrator watch /v2/health/ready loses every camera of that server until
#   somebody looks. A probe has to ask the model for something.
# Output seen:
#   after its process was killed: StatusCode.INTERNAL
#   60 s later: StatusCode.INTERNAL; server live True, ready True, model ready True
#   after load_model: answered
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 -- "-$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet 'tritonclient[grpc]==2.73.0' numpy==1.26.4
venv/bin/pip install --quiet --no-deps nvidia-pytriton==0.7.0
mkdir -p models/echo/1 backends
cat > models/echo/config.pbtxt <<'CONFIG'
backend: "python"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
CONFIG
cat > models/echo/1/model.py <<'MODEL'
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", one)]) for one in given]
MODEL
wheel=$(venv/bin/python -c 'import importlib.util as u; print(u.find_spec("pytriton").submodule_search_locations[0])')
stub=$(venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cp -r "$wheel/tritonserver/backends/python" backends/
cp "$wheel/tritonserver/python_backend_stubs/$stub/triton_python_backend_stub" backends/python/
PATH="$folder/venv/bin:$PATH" LD_LIBRARY_PATH="$wheel/../nvidia_pytriton.libs" setsid "$wheel/tritonserver/bin/tritonserver" \
  --model-repository="$folder/models" --backend-directory="$folder/backends" --allow-metrics=false --allow-http=false \
  --model-control-mode=explicit --load-model=echo --grpc-address=127.0.0.1 --grpc-port=18913 > log 2>&1 &
server=$!
cat > ask.py <<'PROGRAM'
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient("127.0.0.1:18913")
for _ in range(300):
    try:
        if client.is_model_ready("echo"):
            break
    except InferenceServerException:
        pass
    time.sleep(0.2)


def ask():
    given = InferInput("X", [1], "INT32")
    given.set_data_from_numpy(np.zeros(1, np.int32))
    try:
        client.infer("echo", [given], client_timeout=10)
    except InferenceServerException as error:
        return error.status()
    return "answered"


assert ask() == "answered"
[stub] = [one for one in Path("/proc").iterdir() if one.name.isdecimal() and f"{os.getcwd()}/" in
          (one / "cmdline").read_text() and "python_backend_stub" in (one / "cmdline").read_text()]
os.kill(int(stub.name), signal.SIGKILL)
first = ask()
time.sleep(60)
later = ask()
said = client.is_server_live(), client.is_server_ready(), client.is_model_ready("echo")
client.load_model("echo")
back = ask()
print("after its process was killed:", first)
print(f"60 s later: {later}; server live {said[0]}, ready {said[1]}, model ready {said[2]}")
print("after load_model:", back)
sys.exit((first, later, said, back) != ("StatusCode.INTERNAL", "StatusCode.INTERNAL", (True, True, True), "answered"))
PROGRAM
venv/bin/python ask.py
