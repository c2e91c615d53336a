"""Where results go: files, HTTP receivers, MQTT brokers."""

from rdn_engine.service.outputs.lane import OutputCounts
from rdn_engine.service.outputs.opening import open_output
from rdn_engine.service.outputs.output import Output, OutputTrouble
from rdn_engine.service.outputs.settings import (
    JsonlSettings,
    MqttSettings,
    OutputOptions,
    OutputSettings,
    WebhookSettings,
    parse_output,
)

__all__ = [
    "JsonlSettings",
    "MqttSettings",
    "Output",
    "OutputCounts",
    "OutputOptions",
    "OutputSettings",
    "OutputTrouble",
    "WebhookSettings",
    "open_output",
    "parse_output",
]
