#!/usr/bin/env bash
# RTP packets that never came: pictures come out as if whole; FFmpeg says the loss in its log alone, which PyAV has off.
#
# Seen with: av 18.1.0 (its own FFmpeg 8.1.2), numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: every 40th packet of an H.264 stream over UDP is left out. Neither a packet nor most pictures after it are
#   marked: FFmpeg counts the gap ("RTP: missed 1 packets", a warning) and the decoder fills in what it lacks. PyAV gives
#   no log before `av.logging.set_level`, and then leaves out a line that repeats the last one of any other thread.
# A user of live video object detection sees objects in patches of older pictures, and no field says so.
# Output seen:
#   packets left out: 24; said in the log: 24
#   packets marked corrupt: 0; pictures marked corrupt: 16 of 179
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet av==18.1.0 numpy==2.4.6
timeout 90 venv/bin/python -I - <<'PROGRAM'
import re
import socket
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np

FRAMES, EVERY = 200, 40
relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
relay.bind(("127.0.0.1", 0))
port = relay.getsockname()[1]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
    free.bind(("127.0.0.1", 0))
    target = free.getsockname()[1] & ~1
Path("camera.sdp").write_text(
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
    f"m=video {target} RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
)
left_out, ready = 0, threading.Event()


def forward():
    global left_out
    number = 0
    while True:
        data = relay.recv(65536)
        if data == b"end":
            return
        number += 1
        if number > 200 and number % EVERY == 0:
            left_out += 1
        else:
            relay.sendto(data, ("127.0.0.1", target))


def send():
    noise = np.random.default_rng(0)
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": "25", "threads": "1", "x264-params": "repeat-headers=1"}
    time.sleep(1.0)
    with av.open(f"rtp://127.0.0.1:{port}?pkt_size=600", "w", format="rtp") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 128, "yuv420p", 600_000
        for number in range(FRAMES):
            picture = noise.integers(0, 256, (16, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
            time.sleep(0.04)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"end", ("127.0.0.1", port))


for thread in (threading.Thread(target=forward, daemon=True), threading.Thread(target=send, daemon=True)):
    thread.start()
av.logging.set_level(av.logging.WARNING)
av.logging.set_skip_repeated(False)
packets = pictures = marked_packets = marked_pictures = 0
with av.logging.Capture(True) as lines:
    try:
        options = {"protocol_whitelist": "file,udp,rtp"}
        with av.open("camera.sdp", options=options, timeout=4) as container:
            for packet in container.demux(video=0):
                packets += 1
                marked_packets += packet.is_corrupt
                try:
                    for picture in packet.decode():
                        pictures += 1
                        marked_pictures += picture.is_corrupt
                except av.FFmpegError:
                    pass
    except av.FFmpegError:  # the sender has ended
        pass
said = sum(int(n) for _, _, line in lines for n in re.findall(r"RTP: missed (\d+)", line))
print(f"packets left out: {left_out}; said in the log: {said}")
print(f"packets marked corrupt: {marked_packets}; pictures marked corrupt: {marked_pictures} of {pictures}")
assert left_out > 10
assert abs(said - left_out) <= 1
assert marked_packets == 0
assert marked_pictures < said
PROGRAM
