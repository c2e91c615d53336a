"""What a user typed as a source, of which nothing secret is ever printed."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?\])(:[0-9]{1,5})?")
_VALUE = re.compile("=|%(25)*3d", re.IGNORECASE)
"""What stands before a value: recorders take `/user=admin_password=..._channel=1_stream=0.sdp`"""
_PARAMETERS = re.compile(r"[?&#;]|[:/\\][/\\]")
"""What no name has before a value, unless it is a mistyped address: `?`, or `:/` and `//` of a scheme"""
_HIDDEN = "..."


def without_credentials(text: str) -> str:
    """A source as it may be printed. Of an address that is scheme, host, port and path.

    User and password go, and so does the query, where cameras take `?user=...&pwd=...`, and the path from the first
    part on that gives a value. Where an `@` follows the first `/`, `?` or `#`, a password and a query that hold them
    cannot be told apart, and the scheme alone is left. What has no `://` is a name, and stays, unless it looks like a
    mistyped address with a password: of that nothing is left.

    Args:
        text: an address or a name; it need not be well formed.

    Returns:
        The rest, with `...` in the place of what was cut from host and path.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return f"{_HIDDEN} (not shown, as it may hold a password)" if _is_mistyped(text) else text
    if scheme == "file" and rest.startswith("/"):
        return f"file://{without_credentials(rest)}"
    shown = scheme if _SCHEME.fullmatch(scheme) else _HIDDEN
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    place, behind = authority.rpartition("@")[2], rest[len(authority) :]
    if "@" in behind or (place and _HOST.fullmatch(place) is None):
        return f"{shown}://{_HIDDEN}"
    path = re.split("[?#;]", behind, maxsplit=1)[0]
    value = _VALUE.search(path)
    return f"{shown}://{place}{path[: path.rfind('/', 0, value.start()) + 1] + _HIDDEN if value else path}"


def has_raw_password(text: str) -> bool:
    """Whether an address may hold a password that FFmpeg cannot read, because a `/`, `?` or `#` stands in it as it is.

    Args:
        text: an address.
    """
    rest = text.partition("://")[2]
    return "@" in rest[len(re.split("[/?#]", rest, maxsplit=1)[0]) :]


def _is_mistyped(text: str) -> bool:
    """Whether a text without `://` looks like an address with a password: `rtsp:/user:password@...`, `cam/1?pwd=...`"""
    before = text.rpartition("@")[0].lower()
    if ":" in before or "%3a" in before:
        return True
    parameters = _PARAMETERS.search(text)
    return parameters is not None and _VALUE.search(text, parameters.end()) is not None


def hide_sources(message: str, typed: list[str]) -> str:
    """A message that may quote what was typed, with every part of that as `without_credentials` gives it.

    Args:
        message: for people.
        typed: the arguments of a command; both sides of `--name=value` are looked for too.
    """
    values = {value for one in typed for value in (one, *(one.split("=", 1) if one.startswith("-") else ()))}
    # The longest first: one may be a part of another. Messages quote some of them as Python does.
    for value in sorted(values, key=len, reverse=True):
        shown = without_credentials(value)
        if shown != value:
            message = message.replace(value, shown).replace(repr(value)[1:-1], shown)
    return message
