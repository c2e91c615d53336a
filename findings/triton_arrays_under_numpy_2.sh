#!/usr/bin/env bash
# Under numpy 2 Triton's Python backend gives a model wrong arrays and sends empty ones, without an error.
#
# Seen with: Triton 2.51.0 of the nvidia-pytriton 0.7.0 wheel, numpy 2.4.6 and 1.26.4, tritonclient 2.73.0, Python 3.11,
#   Linux x86-64, no GPU.
# Behaviour: a model is sent int64 [3], 5 6 7, and returns pb_utils.Tensor("Y", array) of the same. Under numpy 1 it
#   reads 5 6 7, and the client gets them. Under numpy 2 as_numpy() reads 5 5 5, and the output has its name, type and
#   shape, and no bytes; the request succeeds. By DLPack it is the other way round: whole under numpy 2; under numpy 1
#   the model loses itself in "PyCapsule_GetPointer called with incorrect name", and the request gets no answer.
# A user of video object detection who installs today's packages beside this backend gets detections of other pictures
#   than were sent, or none, and no error to look for. The wheel's metadata asks for numpy below 2; an image with that
#   server does not.
# Output seen:
#   numpy 1.26.4: reads [5, 6, 7]; Tensor 24 bytes of 24, from_dlpack no answer
#   numpy 2.4.6: reads [5, 5, 5]; Tensor 0 bytes of 24, from_dlpack 24 bytes of 24
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -9 -- "-$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet 'tritonclient[grpc]==2.73.0'
venv/bin/pip install --quiet --no-deps nvidia-pytriton==0.7.0
mkdir backends
for how in array dlpack; do
  mkdir -p "models/$how/1"
  cat > "models/$how/config.pbtxt" <<'CONFIG'
backend: "python"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_INT64 dims: [ 3 ] } ]
output [ { name: "Y" data_type: TYPE_INT64 dims: [ 3 ] } ]
instance_group [ { kind: KIND_CPU } ]
CONFIG
done
cat > models/array/1/model.py <<'MODEL'
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            with open("seen", "w") as file:
                print(pb_utils.get_input_tensor_by_name(request, "X").as_numpy().tolist(), file=file)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([5, 6, 7], np.int64))]) for _ in requests]
MODEL
sed 's/pb_utils.Tensor(/pb_utils.Tensor.from_dlpack(/' models/array/1/model.py > models/dlpack/1/model.py
wheel=$(venv/bin/python -c 'import importlib.util as u; print(u.find_spec("pytriton").submodule_search_locations[0])')
stub=$(venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cp -r "$wheel/tritonserver/backends/python" backends/
cp "$wheel/tritonserver/python_backend_stubs/$stub/triton_python_backend_stub" backends/python/
cat > ask.py <<'PROGRAM'
import sys
import time

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient("127.0.0.1:18912")
for _ in range(300):
    try:
        if client.is_server_ready():
            break
    except InferenceServerException:
        pass
    time.sleep(0.2)
found = []
for how in ("array", "dlpack"):
    given = InferInput("X", [3], "INT64")
    given.set_data_from_numpy(np.array([5, 6, 7], np.int64))
    try:
        answer = client.infer(how, [given], client_timeout=10).get_response()
        assert list(answer.outputs[0].shape) == [3]
        found.append(f"{len(b''.join(answer.raw_output_contents))} bytes of 24")
    except InferenceServerException:  # the client's own timeout, or "Stub process is not healthy"
        found.append("no answer")
    if how == "array":
        seen = open("seen").read().strip()
print(f"numpy {np.__version__}: reads {seen}; Tensor {found[0]}, from_dlpack {found[1]}")
right = seen == "[5, 6, 7]"
if np.__version__ < "2":
    sys.exit(not right or found != ["24 bytes of 24", "no answer"])
sys.exit(right or found != ["0 bytes of 24", "24 bytes of 24"])
PROGRAM
for version in 1.26.4 2.4.6; do
  venv/bin/pip install --quiet "numpy==$version" 2> /dev/null
  PATH="$folder/venv/bin:$PATH" LD_LIBRARY_PATH="$wheel/../nvidia_pytriton.libs" setsid "$wheel/tritonserver/bin/tritonserver" \
    --model-repository=models --backend-directory=backends --allow-metrics=false --allow-http=false \
    --grpc-address=127.0.0.1 --grpc-port=18912 > log 2>&1 &
  server=$!
  venv/bin/python ask.py
  kill -9 -- "-$server"
  wait "$server" 2>/dev/null || true
  server=
done
