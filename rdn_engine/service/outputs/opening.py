"""From the settings of an output to the output."""

from __future__ import annotations

from collections.abc import Callable

from rdn_engine.errors import BackendUnavailable
from rdn_engine.service.outputs.jsonl import JsonlWriter
from rdn_engine.service.outputs.output import Output, OutputTrouble
from rdn_engine.service.outputs.settings import JsonlSettings, OutputSettings, WebhookSettings
from rdn_engine.service.outputs.writer import Writer


def open_output(name: str, settings: OutputSettings, on_trouble: Callable[[OutputTrouble, str], None]) -> Output:
    """An output that takes lines. Its file is opened, its receiver called, with the first line.

    Args:
        name: of the output, for messages.
        settings: of any kind.
        on_trouble: as `Output` takes it.

    Raises:
        ConfigError: for an address, a secret, a header or a certificate that cannot be used or is not there.
        OSError: for a file that is named in the settings and cannot be read.
        BackendUnavailable: for a kind whose library is not installed.
    """
    return Output(name, _writer(name, settings), settings, on_trouble)


def _writer(name: str, settings: OutputSettings) -> Writer:
    if isinstance(settings, JsonlSettings):
        return JsonlWriter(settings)
    if isinstance(settings, WebhookSettings):
        try:
            from rdn_engine.service.outputs.webhook import WebhookWriter
        except ImportError as error:
            raise BackendUnavailable(f"output {name!r} needs httpx2 ({error}); pip install httpx2") from error
        return WebhookWriter(name, settings)
    try:
        from rdn_engine.service.outputs.mqtt import MqttWriter
    except ImportError as error:
        raise BackendUnavailable(f"output {name!r} needs paho-mqtt ({error}); pip install paho-mqtt") from error
    return MqttWriter(name, settings)
