#!/usr/bin/env bash
# `import onnxruntime` writes a device identifier and a telemetry database into the home folder, except on CI.
#
# Seen with: onnxruntime 1.32.0, Python 3.11, Linux x86-64.
# Behaviour: no session is needed. Under $XDG_CACHE_HOME, or $HOME/.cache, Microsoft/DeveloperTools/.onnxruntime/ gets
#   `deviceid` (36 characters) and `onnxruntime.db`. ORT_DISABLE_TELEMETRY=1 prevents both if it is set before the
#   import; `onnxruntime.disable_telemetry_events()` and a variable set after the import come too late for the files,
#   and DO_NOT_TRACK=1 is not heeded. With CI=1 nothing is written, so tests on CI do not show it.
# A user of video object detection ships cameras or containers that are to write nothing and to have no identity of
#   their own: a read-only or shared home gets these files from a detector that only reads a graph.
# Output seen:
#   import                            deviceid onnxruntime.db
#   import, then disable_...events()  deviceid onnxruntime.db
#   import, then the variable         deviceid onnxruntime.db
#   DO_NOT_TRACK=1                    deviceid onnxruntime.db
#   ORT_DISABLE_TELEMETRY=1           nothing
#   CI=1                              nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnxruntime==1.32.0
venv/bin/python -I - <<'PROGRAM'
import os
import subprocess
import sys
from pathlib import Path

CASES = {
    "import": ({}, "import onnxruntime"),
    "import, then disable_...events()": ({}, "import onnxruntime as o; o.disable_telemetry_events()"),
    "import, then the variable": ({}, "import onnxruntime, os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'"),
    "DO_NOT_TRACK=1": ({"DO_NOT_TRACK": "1"}, "import onnxruntime"),
    "ORT_DISABLE_TELEMETRY=1": ({"ORT_DISABLE_TELEMETRY": "1"}, "import onnxruntime"),
    "CI=1": ({"CI": "1"}, "import onnxruntime"),
}
found = {}
for number, (name, (variables, program)) in enumerate(CASES.items()):
    home = Path(f"home{number}").absolute()
    home.mkdir()
    # A bare environment: of CI's many variables others count too.
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), **variables}
    subprocess.run([sys.executable, "-I", "-c", program], env=bare, check=True)
    files = sorted(path for path in home.rglob("*") if path.is_file())
    found[name] = [path.name for path in files if path.suffix in ("", ".db")]
    print(f"{name:33}", *(found[name] or ["nothing"]))
    place = home / ".cache/Microsoft/DeveloperTools/.onnxruntime"
    assert all(path.parent == place for path in files)
    assert not files or len((place / "deviceid").read_text()) == 36
late = ["deviceid", "onnxruntime.db"]
assert found == {name: [] if "ORT_" in name or "CI" in name else late for name in CASES}
PROGRAM
