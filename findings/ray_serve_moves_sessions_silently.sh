#!/usr/bin/env bash
# Ray Serve's consistent-hash router moves sessions of replicas that live, when another replica dies and is replaced.
#
# Seen with: ray 2.60.0; Python 3.11, Linux x86-64.
# Behaviour: with ConsistentHashRouter a session_id stays with its replica. When a replica is killed, its sessions are
#   served by another one. When Ray has replaced it, the ring has another member, and sessions move that were never on
#   the dead one. Every call succeeds all the while; nothing in a call or its answer says that the replica is another.
# Who keeps something of a session in its replica (the frames of a video's window, a tracker's tracks) goes on with
#   nothing, or with what was there before the session moved away. The answer must name the state that gave it.
# Output seen (the numbers of sessions change from run to run, as replicas' names do):
#   calls that failed: 0
#   sessions of the dead replica: 10, that are told so by an error: 0
#   sessions of the replica that lived: 10, of which moved to the new one: 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet 'ray[serve]==2.60.0'
export RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
cat > app.py <<'PROGRAM'
import os
import signal
import time

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

SESSIONS = [f"camera {i}" for i in range(20)]


@serve.deployment(
    num_replicas=2,
    ray_actor_options={"num_cpus": 0},
    request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
)
class Where:
    def __call__(self):
        return os.getpid()


ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
handle = serve.run(Where.bind(), name="where", route_prefix=None)
failed = 0


def ask():
    global failed
    found = {}
    for session in SESSIONS:
        try:
            found[session] = handle.options(session_id=session).remote().result(timeout_s=60)
        except Exception as error:
            failed += 1
            print(type(error).__name__, error)
    return found


before = ask()
assert ask() == before, "a session stays on its replica"
dead, alive = sorted(set(before.values()))
os.kill(dead, signal.SIGKILL)
after, end = ask(), time.monotonic() + 120
while set(after.values()) <= {dead, alive} and time.monotonic() < end:
    time.sleep(0.5)
    after = ask()
of_dead = [session for session in SESSIONS if before[session] == dead]
of_alive = [session for session in SESSIONS if before[session] == alive]
moved = [session for session in of_alive if after.get(session) != alive]
print("calls that failed:", failed)
print(f"sessions of the dead replica: {len(of_dead)}, that are told so by an error: {failed}")
print(f"sessions of the replica that lived: {len(of_alive)}, of which moved to the new one: {len(moved)}")
serve.shutdown()
ray.shutdown()
assert not failed and moved
PROGRAM
# Ray's own word on the process that was killed is left out.
venv/bin/python app.py 2>/dev/null | grep --invert-match '(raylet)'
