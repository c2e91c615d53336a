#!/usr/bin/env bash
# A live camera of few frames a second: FFmpeg holds its first twenty pictures back until it knows their rate.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: opening MPEG-TS, or RTSP, reads on until twenty pictures are there, though H.264 says its rate in the first
#   one. At 10 frames a second that is two seconds, after which all come at once, and the first is two seconds old while
#   its time of arrival says now. The option `fpsprobesize` 2 opens after a handful and finds the same rate.
# A user who measures the delay of live video object detection from the arrival of a frame does not see these seconds.
# Output seen:
#   no options: more than 20 pictures sent before it is open, rate 10
#   fpsprobesize 2: fewer than 10 pictures sent before it is open, rate 10
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
timeout 60 venv/bin/python -I - <<'PROGRAM'
import io
import socket
import threading
import time
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np


def clip(frames):
    """What each picture adds to a transport stream."""
    file, pieces = io.BytesIO(), []
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "threads": "1"}
    with av.open(file, "w", format="mpegts", options={"flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 2 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
            pieces.append(file.getvalue())
    return [after[len(before):] for before, after in zip([b"", *pieces], pieces)]


pieces, sent = clip(100), 0


def send(listener):
    global sent
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
    with suppress(OSError):
        for sent, piece in enumerate(pieces, 1):
            connection.sendall(piece)
            time.sleep(0.1)
    connection.close()


def open_one(**options):
    global sent
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=send, args=(listener,))
        sender.start()
        with av.open(f"http://127.0.0.1:{listener.getsockname()[1]}/", options=options, timeout=20) as container:
            at_open, rate = sent, container.streams.video[0].average_rate
        sender.join()
    return at_open, rate


slow, rate = open_one()
print(f"no options: {'more' if slow > 20 else 'NOT more'} than 20 pictures sent before it is open, rate {rate}")
quick, same = open_one(fpsprobesize="2")
print(f"fpsprobesize 2: {'fewer' if quick < 10 else 'NOT fewer'} than 10 pictures sent before it is open, rate {same}")
assert (slow > 20, quick < 10, rate, same) == (True, True, 10, 10)
PROGRAM
