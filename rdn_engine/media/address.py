"""Addresses, of which nothing secret is ever printed."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_HOST = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Za-z:.%]+\])(:\d{1,5})?(?=[/?#;]|$)")
_SECRET_KEY = re.compile(
    r"[^/]*(user|usr|login|account|pass|pwd|psw|psd|auth|token|secret|key|sign|sess)[^/=]*(=|%3d)", re.IGNORECASE
)
"""A part of a path that names a credential: recorders take `/user=admin_password=..._channel=1_stream=0.sdp`"""
_HIDDEN = "..."


def without_credentials(url: str) -> str:
    """An address as it may be printed: scheme, host, port and path.

    A password may hold any character, so nothing between `//` and the last `@` is kept. The query, where cameras take
    `?user=...&pwd=...` and `?auth=...`, goes as a whole, and the path from the part on that names a credential.

    Args:
        url: with `://`; it need not be well formed.

    Returns:
        The rest, with `...` in the place of what was cut from host and path.
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else _HIDDEN
    rest = url.partition("://")[2].rpartition("@")[2]
    host = _HOST.match(rest)
    if host is None and not rest.startswith("/"):
        return f"{scheme}://{_HIDDEN}"
    place = host[0] if host else ""
    path = re.split(r"[?#;]", rest[len(place) :], maxsplit=1)[0]
    secret = _SECRET_KEY.search(path)
    return f"{scheme}://{place}{path[: secret.start()] + _HIDDEN if secret else path}"


def hide_addresses(text: str) -> str:
    """Whatever text, with every address in it as `without_credentials` gives it.

    Args:
        text: a message that quotes what a user typed.
    """
    # To the end of the line: a password may hold blanks and quotes.
    return re.sub(r"[A-Za-z0-9+.-]*://[^\n]*", lambda m: without_credentials(m[0]), text)
