#!/usr/bin/env bash
# A message that paho-mqtt says it could not publish arrives all the same, and is said to have failed for ever.
#
# Seen with: paho-mqtt 2.2.0, amqtt 0.12.1; Python 3.11, Linux x86-64.
# Behaviour: a message with QoS 1 that is published while the broker is away gets the code MQTT_ERR_NO_CONN, stays in the
#   client, and is sent once the broker is there. It arrives, is acknowledged, and on_publish is called; but
#   `is_published` and `wait_for_publish` of what `publish` returned raise, because they look at the old code first.
# Who sends the results of a camera and publishes again what is said to have failed has each of them twice after every
#   outage. The code may be set to MQTT_ERR_SUCCESS where it is MQTT_ERR_NO_CONN and the QoS is 1.
# Output seen:
#   code of publish: MQTT_ERR_NO_CONN
#   arrived: ['result 0']
#   on_publish called: yes
#   is_published: Message publish failed: The client is not currently connected.
#   is_published with the code set to success: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet paho-mqtt==2.2.0 amqtt==0.12.1
venv/bin/python -I - <<'PROGRAM'
import asyncio
import socket
import threading

from amqtt.broker import Broker
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]


def serve() -> None:
    async def run() -> None:
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        await Broker({"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}).start()
        subscriber.connect("127.0.0.1", port)
        subscriber.loop_start()
        await asyncio.Event().wait()

    asyncio.run(run())


arrived, acknowledged, ready = [], threading.Event(), threading.Event()
got = threading.Event()
subscriber = Client(CallbackAPIVersion.VERSION2)
subscriber.on_connect = lambda client, *_: client.subscribe("#", 1)
subscriber.on_subscribe = lambda *_: ready.set()
subscriber.on_message = lambda client, data, message: (arrived.append(message.payload.decode()), got.set())

client = Client(CallbackAPIVersion.VERSION2)
client.on_publish = lambda *_: acknowledged.set()
info = client.publish("results", "result 0", qos=1)
print("code of publish:", MQTTErrorCode(info.rc).name)

threading.Thread(target=serve, daemon=True).start()
assert ready.wait(30)
client.connect("127.0.0.1", port)
client.loop_start()
assert got.wait(30)
print("arrived:", arrived)
print("on_publish called:", "yes" if acknowledged.wait(30) else "no")
try:
    said = str(info.is_published())
except RuntimeError as error:
    said = str(error)
print("is_published:", said)
info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
print("is_published with the code set to success:", info.is_published())
assert "not currently connected" in said and info.is_published() and arrived == ["result 0"]
PROGRAM
