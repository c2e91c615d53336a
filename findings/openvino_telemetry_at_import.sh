#!/usr/bin/env bash
# `import openvino` makes a client identifier in the home folder and sends a message to an analytics service, unasked.
#
# Seen with: openvino 2026.4.1, openvino-telemetry 2025.2.0 (which it requires), Python 3.11, Linux x86-64.
# Behaviour: no model is needed. $HOME/intel/ gets `openvino_ga_cid` (36 characters) and `stats`, and a child that is
#   forked asks for www.google-analytics.com. Not where CI=true is set, so tests on CI do not show it; DO_NOT_TRACK=1 is
#   not heeded. The package's own `opt_in_out --opt_out` leaves a file in the home folder that prevents both from then
#   on. Where the module `openvino_telemetry` cannot be imported, OpenVINO does without it.
# A user of video object detection ships cameras or containers that are to speak to nobody, and whose homes are fresh: an
#   opt-out in a home is gone with it. The fork meets a process that may have threads of a decoder already, of which
#   Python 3.12 warns.
# Output seen (the request ends at a proxy of this script's):
#   import                       openvino_ga_cid stats   1 fork   CONNECT www.google-analytics.com:443
#   DO_NOT_TRACK=1               openvino_ga_cid stats   1 fork   CONNECT www.google-analytics.com:443
#   CI=true                      nothing                 0 forks  nobody
#   without openvino_telemetry   nothing                 0 forks  nobody
#   opted out                    openvino_telemetry      0 forks  nobody
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 openvino-telemetry==2025.2.0
venv/bin/python -I - <<'PROGRAM'
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

COUNT = "import os; forks = []; os.register_at_fork(before=lambda: forks.append(1)); "
IMPORT = COUNT + "import openvino, time; time.sleep(2); print(len(forks))"
CASES = {
    "import": ({}, IMPORT),
    "DO_NOT_TRACK=1": ({"DO_NOT_TRACK": "1"}, IMPORT),
    "CI=true": ({"CI": "true"}, IMPORT),
    "without openvino_telemetry": ({}, "import sys; sys.modules['openvino_telemetry'] = None; " + IMPORT),
    "opted out": ({}, IMPORT),
}

asked = []
listener = socket.create_server(("127.0.0.1", 0))


def refuse():
    while True:
        connection, _ = listener.accept()
        asked.append(connection.recv(4096).split(b" HTTP")[0].decode())
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        connection.close()


threading.Thread(target=refuse, daemon=True).start()
found = {}
for number, (name, (variables, program)) in enumerate(CASES.items()):
    home = Path(f"home{number}").absolute()
    home.mkdir()
    # A bare environment: of CI's many variables others count too.
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "https_proxy": proxy, **variables}
    if name == "opted out":
        switch = Path(sys.executable).parent / "opt_in_out"
        subprocess.run([switch, "--opt_out"], env=bare, check=True, capture_output=True)
    asked.clear()
    done = subprocess.run([sys.executable, "-I", "-c", program], env=bare, check=True, capture_output=True, text=True)
    files = sorted(path for path in home.rglob("*") if path.is_file())
    assert all(path.parent == home / "intel" for path in files)
    identifier = home / "intel" / "openvino_ga_cid"
    assert not identifier.exists() or len(identifier.read_text().strip()) >= 36
    forks = int(done.stdout)
    found[name] = [path.name for path in files], forks, sorted(set(asked))
    words = " ".join(found[name][0]) or "nothing", f"{forks} fork{'s' * (forks != 1)}", *(found[name][2] or ["nobody"])
    print(f"{name:28} {words[0]:23} {words[1]:8}", *words[2:])
told = ["openvino_ga_cid", "stats"], 1, ["CONNECT www.google-analytics.com:443"]
assert found["import"] == found["DO_NOT_TRACK=1"] == told
assert found["CI=true"] == found["without openvino_telemetry"] == ([], 0, [])
assert found["opted out"][1:] == (0, [])
PROGRAM
