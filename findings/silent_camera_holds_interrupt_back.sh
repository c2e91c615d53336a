#!/usr/bin/env bash
# SIGINT and SIGTERM handlers of Python do not run while OpenCV or PyAV wait for a camera that sends nothing.
#
# Seen with: opencv-python-headless 5.0.0.93, av 18.1.0 (its own FFmpeg 8.1.2); Python 3.11, Linux x86-64.
# Behaviour: Python runs a handler between two bytecodes of the main thread, and a read of an address is one call that
#   polls in C until its own timeout: 30 s in OpenCV, what `timeout=` says in PyAV (without it, for ever). Ctrl-C, and a
#   handler of SIGTERM that would close files, wait for it.
# A user of video object detection whose camera falls silent cannot stop the program, and a container's grace of 10 s
#   ends before the handler runs: what was being recorded lacks its index. What helps is to read in another thread.
# Output seen:
#   OpenCV runs 10 s after the signal: yes
#   PyAV runs 10 s after the signal: yes
#   a read in another thread runs 10 s after the signal: no
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 opencv-python-headless==5.0.0.93
venv/bin/python -I - <<'PROGRAM'
import signal
import socket
import subprocess
import sys
import time

READERS = {
    "OpenCV": ("import cv2, sys; cv2.VideoCapture(sys.argv[1])", True),
    "PyAV": ("import av, sys; av.open(sys.argv[1], timeout=25.0)", True),
    "a read in another thread": (
        "import av, queue, sys, threading\n"
        "answer = queue.SimpleQueue()\n"
        "def read(): answer.put(av.open(sys.argv[1], timeout=25.0))\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "answer.get()",
        False,
    ),
}
for name, (program, wanted) in READERS.items():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen([sys.executable, "-c", program, address], stderr=subprocess.DEVNULL)
        connection, _ = server.accept()
        time.sleep(1)  # until it waits in C
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
            runs = False
        except subprocess.TimeoutExpired:
            runs = True
        process.kill()
        process.wait()
        connection.close()
    print(f"{name} runs 10 s after the signal: {'yes' if runs else 'no'}")
    assert runs == wanted
PROGRAM
