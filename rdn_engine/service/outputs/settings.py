"""Where results go and how, as a file of settings says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from rdn_engine.errors import ConfigError
from rdn_engine.media.frame_queue import Policy
from rdn_engine.plain import SECRET, check, check_fields, from_plain, shown

_LONGEST = 3600.0
"""Seconds"""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What every kind of output has: its queues, its tries, and which lines it takes."""

    policy: Policy = "drop_oldest"
    """What happens to a line for which there is no room: the stream waits, its oldest line goes, or the new one"""
    room: int = 128
    """Lines of each stream that may wait, 1..100000, beside the batch that is being written"""
    batch: int = 32
    """Lines of one stream that are written together at most, 1..10000"""
    first_delay: float = 0.5
    """Seconds, 0.01..3600, before a batch that failed is tried again"""
    longest_delay: float = 30.0
    """Seconds, 0.01..3600: the delay doubles with every failed try up to here"""
    min_confidence: float = 0.0
    """Detections below it, 0..1, are left out of the lines"""
    class_names: tuple[str, ...] = ()
    """Detections of other classes are left out of the lines; none named takes all"""
    only_with_detections: bool = False
    """Whether lines without (remaining) detections are left out"""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            ConfigError: says which is of another type or out of its range.
        """
        check_fields(
            self, "output", room=(1, 100_000), batch=(1, 10_000), first_delay=(0.01, _LONGEST),
            longest_delay=(0.01, _LONGEST), min_confidence=(0, 1),
        )  # fmt: skip
        wanted = f"0.01..{self.longest_delay:g}, the longest delay"
        check(self.first_delay <= self.longest_delay, "output.first_delay", self.first_delay, wanted)

    def select(self, line: dict[str, Any]) -> dict[str, Any] | None:
        """The part of a line that this output takes.

        Args:
            line: as `Detections.to_dict` gives it, with whatever else; it is not changed.

        Returns:
            The line with the detections that are wanted; None where the line is left out.
        """
        if self.min_confidence > 0 or self.class_names:
            rows = [row for row in line["detections"] if self._wants(row)]
            line = {**line, "detections": rows}
        return None if self.only_with_detections and not line["detections"] else line

    def _wants(self, row: dict[str, Any]) -> bool:
        named = not self.class_names or row["class_name"] in self.class_names
        return named and row["confidence"] >= self.min_confidence


@dataclass(frozen=True, kw_only=True)
class JsonlSettings(OutputOptions):
    """Lines at the end of files (`kind: jsonl`)."""

    path: str
    """Of the file. `{stream}` in it stands for the stream's name, and makes a file for each; folders are made"""
    max_bytes: int | None = None
    """A file that would grow beyond it, 1000 or more, becomes PATH.1, and a new one begins; None never"""
    keep: int = 5
    """Older files PATH.1, PATH.2, ... that stay, 1..1000"""
    fsync: bool = False
    """Whether a batch counts as written only when the disk has it: slower, and safe from a power cut"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "output", max_bytes=(1000, 2**60), keep=(1, 1000))
        check(self.path != "" and "\0" not in self.path, "output.path", self.path, "the path of a file")
        # Otherwise the file of a stream `a.1` could be the older file of a stream `a`.
        ok = self.max_bytes is None or re.search(r"[^}0-9/]$", self.path) is not None
        check(ok, "output.path", self.path, "a name that ends in a letter, as NUMBER follows it: {stream}.jsonl")


@dataclass(frozen=True, kw_only=True)
class WebhookSettings(OutputOptions):
    """Lines in the bodies of HTTP requests (`kind: webhook`)."""

    url: str = field(repr=False, metadata=SECRET)
    """http:// or https://; `env:NAME` or `@FILE` keeps it out of the settings"""
    headers: dict[str, str] = field(default_factory=dict, repr=False, metadata=SECRET)
    """Sent with each request; values may be `env:NAME` or `@FILE`"""
    timeout: float = 10.0
    """Seconds, 0.1..3600, that a request may take in all"""
    secret: str | None = field(default=None, repr=False, metadata=SECRET)
    """Requests are signed with it (`webhook-signature`); may be `env:NAME` or `@FILE`"""
    ca_file: str | None = None
    """Certificates of the authorities that are trusted, PEM; None is those of the system"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "output", timeout=(0.1, _LONGEST))


@dataclass(frozen=True, kw_only=True)
class MqttSettings(OutputOptions):
    """Each line a message to an MQTT broker (`kind: mqtt`)."""

    host: str
    """Of the broker"""
    port: int = 1883
    """1..65535; usually 8883 with TLS"""
    topic: str = "rdn/{stream}"
    """Of the messages; `{stream}` stands for the stream's name"""
    qos: Literal[0, 1] = 1
    """With 1 a line counts as written when the broker has acknowledged it, with 0 when it was sent"""
    retain: bool = False
    """Whether the broker keeps the latest message of a topic for those who come later"""
    username: str | None = field(default=None, repr=False, metadata=SECRET)
    """May be `env:NAME` or `@FILE`"""
    password: str | None = field(default=None, repr=False, metadata=SECRET)
    """May be `env:NAME` or `@FILE`"""
    client_id: str = ""
    """As the broker knows this client; two with the same one disconnect each other. Empty lets the broker choose"""
    tls: bool = False
    """Whether the connection is encrypted and the broker's certificate checked"""
    ca_file: str | None = None
    """Certificates of the authorities that are trusted, PEM; None is the system's"""
    cert_file: str | None = None
    """This client's certificate, PEM"""
    key_file: str | None = None
    """Its key, PEM; None where the certificate's file holds it"""
    keepalive: int = 30
    """Seconds, 5..3600, after which a silent connection is tested"""
    timeout: float = 10.0
    """Seconds, 0.1..3600, to connect, and for the acknowledgements of a batch"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "output", port=(1, 65535), keepalive=(5, 3600), timeout=(0.1, _LONGEST))
        check(_is_host(self.host), "output.host", self.host, "a name or an address")
        check(0 < len(self.topic) < 2**15 and not set(self.topic) & set("+#\0"), "output.topic", self.topic,
              "the name of a topic, without + and #")  # fmt: skip
        named = [name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name) is not None]
        check(self.tls or not named, "output.tls", self.tls, f"true, as {' and '.join(named)} is given")
        check(self.cert_file is not None or self.key_file is None, "output.cert_file", None, "a file, beside key_file")
        check(self.username is not None or self.password is None, "output.username", None, "a name, beside password")


def _is_host(text: str) -> bool:
    """Whether a name may be looked up: others raise what is no OSError."""
    try:
        return text != "" and len(text.encode("idna")) > 0
    except UnicodeError:
        return False


OutputSettings = JsonlSettings | WebhookSettings | MqttSettings

_KINDS: dict[str, type[OutputSettings]] = {"jsonl": JsonlSettings, "webhook": WebhookSettings, "mqtt": MqttSettings}


def parse_output(data: Any, path: str) -> OutputSettings:
    """The settings of an output, from plain values as YAML and JSON hold them.

    Args:
        data: a mapping with `kind`, and the fields of that kind's settings.
        path: what stands before a field's name in messages.

    Raises:
        ConfigError: names the field, by its path, that is unknown, missing, of another type or out of its range.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is a {type(data).__name__}; wanted a mapping")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"{path}.kind is {shown(kind)}; wanted one of {sorted(_KINDS)}")
    try:
        return from_plain(_KINDS[kind], {name: value for name, value in data.items() if name != "kind"}, path)
    except ConfigError as error:
        message = str(error)
    raise ConfigError(path + message.removeprefix("output") if message.startswith("output.") else message)
