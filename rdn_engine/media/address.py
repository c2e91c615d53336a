"""Addresses, of which nothing secret is ever printed."""

from __future__ import annotations

from urllib.parse import urlsplit


def without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
