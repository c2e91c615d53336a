#!/usr/bin/env bash
# Triton's sequence batcher loses and holds back sequences without a word to the model or the client.
#
# Seen with: Triton 2.51.0 of the nvidia-pytriton 0.7.0 wheel, tritonclient 2.73.0, Python 3.11, Linux x86-64, no GPU.
# Behaviour: with the strategy `oldest`, a model whose sequences are idle for longer than max_sequence_idle_microseconds
#   gets no END for them, so what it holds for a sequence stays. A START of an id that is live is passed on as any other,
#   without the END of the one that it replaces. With max_candidate_sequences 4, a fifth sequence gets no error: its first
#   request waits until another one ends, for ever where none does and the client has no timeout of its own.
# A user of video object detection keeps a window of frames for each camera: memory grows with cameras that went away, a
#   camera that reconnects goes on with the window of another time, and one camera too many simply stops. A model needs a
#   time to live of its own, must begin anew at START, and has to refuse by itself, with more candidates than it takes.
# Output seen:
#   reaped: the model saw a START, no END; the next request: StatusCode.INVALID_ARGUMENT
#   START of a live id: answered; the model saw START, START, no END between
#   a fifth sequence of 4: no answer in 2 s; answered in time once another one has ended
set -euo pipefail
folder=$(mktemp -d)
trap '[ -z "${server:-}" ] || kill "$server" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet nvidia-pytriton==0.7.0 tritonclient[grpc]==2.73.0
mkdir -p models/probe/1 backends
cat > models/probe/config.pbtxt <<'CONFIG'
backend: "python"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "SEEN" data_type: TYPE_STRING dims: [ 1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 4 }
}
instance_group [ { kind: KIND_CPU } ]
CONFIG
cat > models/probe/1/model.py <<'MODEL'
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers with all flags that were seen of a sequence."""

    def initialize(self, args):
        self.seen = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            flags = self.seen.setdefault(request.correlation_id(), [])
            flags.append(request.flags())
            text = ",".join(map(str, flags)).encode()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("SEEN", np.array([[text]], np.object_))]))
        return answers
MODEL
wheel=$(venv/bin/python -c 'import importlib.util as u; print(u.find_spec("pytriton").submodule_search_locations[0])')
stub=$(venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cp -r "$wheel/tritonserver/backends/python" backends/
cp "$wheel/tritonserver/python_backend_stubs/$stub/triton_python_backend_stub" backends/python/
PATH="$folder/venv/bin:$PATH" LD_LIBRARY_PATH="$wheel/../nvidia_pytriton.libs" "$wheel/tritonserver/bin/tritonserver" \
  --model-repository=models --backend-directory=backends --allow-metrics=false --allow-http=false \
  --grpc-address=127.0.0.1 --grpc-port=18911 > log 2>&1 &
server=$!
venv/bin/python - <<'PROGRAM'
import time

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient("127.0.0.1:18911")
for _ in range(300):
    try:
        if client.is_model_ready("probe"):
            break
    except InferenceServerException:
        pass
    time.sleep(0.2)

START, END = 1, 2


def ask(name, flags=0, timeout=10.0):
    """Flags that the model has seen of a sequence, or the status of the error."""
    given = InferInput("X", [1, 1], "INT32")
    given.set_data_from_numpy(np.zeros((1, 1), np.int32))
    try:
        answer = client.infer("probe", [given], sequence_id=name, sequence_start=bool(flags & START),
                              sequence_end=bool(flags & END), client_timeout=timeout)
    except InferenceServerException as error:
        return error.status()
    return [int(one) for one in answer.as_numpy("SEEN").item().decode().split(",")]


assert ask("idle", START) == [START]
time.sleep(8)
refused = ask("idle")
seen = ask("idle", START)
assert seen == [START, START], seen
print("reaped: the model saw a START, no END; the next request:", refused)
again = ask("idle", START)
assert again == [START] * 3, again
print("START of a live id: answered; the model saw START, START, no END between")
ask("idle", END)
for name in "abcd":
    assert ask(name, START) == [START]
held = ask("fifth", START, timeout=2.0)
ask("a", END)
let_in = ask("sixth", START, timeout=2.0)
print(f"a fifth sequence of 4: {'no answer in 2 s' if held == 'StatusCode.DEADLINE_EXCEEDED' else held}; "
      f"{'answered in time once another one has ended' if isinstance(let_in, list) else let_in}")
assert refused == "StatusCode.INVALID_ARGUMENT"
assert held == "StatusCode.DEADLINE_EXCEEDED"
assert isinstance(let_in, list)
PROGRAM
