"""Each line a message to an MQTT broker."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from rdn_engine.errors import ConfigError
from rdn_engine.media.given import given_value
from rdn_engine.service.outputs.settings import MqttSettings
from rdn_engine.service.outputs.writer import Attempt, place_of


class MqttWriter:
    """Publishes lines. The library's thread keeps the connection, and sends again what the broker did not acknowledge:
    a message that was handed to it is waited for, not published once more.
    """

    def __init__(self, name: str, settings: MqttSettings) -> None:
        """Nothing is connected yet.

        Args:
            name: of the output, for messages.
            settings: of the output.

        Raises:
            ConfigError: for values that are not there, and certificates that cannot be used.
            OSError: for a file that cannot be read.
        """
        self._settings = settings
        self._place = f"{settings.host}:{settings.port}"
        self._changed = threading.Condition()
        self._connected = self._stopped = self._started = False
        self._why = "it does not answer"
        self._handed: dict[str, list[tuple[bytes, MQTTMessageInfo]]] = {}
        """By stream: the lines of its batch that the library has"""
        client = Client(CallbackAPIVersion.VERSION2, client_id=settings.client_id)
        client.connect_timeout = settings.timeout
        client.reconnect_delay_set(min_delay=1, max_delay=max(1, round(settings.longest_delay)))
        if settings.username is not None:
            password = None if settings.password is None else given_value(settings.password, "a password")
            client.username_pw_set(given_value(settings.username, "a user's name"), password)
        if settings.tls:
            try:
                client.tls_set(settings.ca_file, settings.cert_file, settings.key_file)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                raise ConfigError(f"output {name!r}: its certificates cannot be used: {why}") from None
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        self._client = client

    def write(self, stream: str, lines: Sequence[bytes]) -> Attempt:
        """Publish lines, and wait for the broker to acknowledge them.

        Args:
            stream: name.
            lines: without line feeds.
        """
        if not self._started:
            self._client.connect_async(self._settings.host, self._settings.port, self._settings.keepalive)
            self._client.loop_start()
            self._started = True
        end = time.monotonic() + self._settings.timeout
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._stopped, self._settings.timeout)
            if not self._connected or self._stopped:
                return Attempt(0, message=f"broker {self._place}: {self._why}", everywhere=True)
        handed = self._hand(stream, lines)
        with self._changed:
            self._changed.wait_for(
                lambda: not self._connected or self._stopped or all(_is_over(info) for _, info in handed),
                max(0.0, end - time.monotonic()),
            )
            why = "it did not acknowledge" if self._connected else self._why
        done = next((i for i, (_, info) in enumerate(handed) if not _is_published(info)), len(handed))
        # Without acknowledgements the library sends nothing again: what is not sent is published once more.
        self._handed[stream] = handed[done:] if self._settings.qos else []
        if done == len(lines):
            return Attempt(done)
        return Attempt(done, message=f"broker {self._place}: {why}", everywhere=True)

    def forget(self, stream: str) -> None:
        """Nothing of the stream's lines is waited for any more."""
        self._handed.pop(stream, None)

    def stop(self) -> None:
        """Wait for nothing any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take leave of the broker."""
        if self._started:
            self._client.disconnect()
            self._client.loop_stop()

    def _hand(self, stream: str, lines: Sequence[bytes]) -> list[tuple[bytes, MQTTMessageInfo]]:
        """Publish those of the lines that the library does not have yet."""
        handed = self._handed.get(stream, [])
        same = all(line is known for line, (known, _) in zip(lines, handed, strict=False))
        handed = handed[: len(lines)] if same else []
        topic = place_of(self._settings.topic, stream)
        for line in lines[len(handed) :]:
            info = self._client.publish(topic, line, self._settings.qos, self._settings.retain)
            if self._settings.qos and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
                # It is sent later, and would say for ever that it failed (findings/paho_failed_message_arrives.sh).
                info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
            handed.append((line, info))
        return handed

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self._connected = not reason.is_failure
            if reason.is_failure:
                self._why = f"it refused the connection: {reason}"
            self._changed.notify_all()

    def _on_connect_fail(self, client: Client, data: Any) -> None:
        error = sys.exc_info()[1]  # it is being handled, and given to nobody
        with self._changed:
            self._why = (
                "no connection" if error is None else f"no connection: {getattr(error, 'strerror', '') or error}"
            )
            self._changed.notify_all()

    def _on_disconnect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            # One that was refused is ended too, and the refusal says more.
            self._why = f"the connection was lost: {reason}" if self._connected else self._why
            self._connected = False
            self._changed.notify_all()

    def _on_publish(self, client: Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._changed.notify_all()


def _is_published(info: MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (RuntimeError, ValueError):  # lost with the connection, or never sent
        return False


def _is_over(info: MQTTMessageInfo) -> bool:
    """Whether nothing more will come of a message."""
    try:
        return info.is_published()
    except (RuntimeError, ValueError):
        return True
