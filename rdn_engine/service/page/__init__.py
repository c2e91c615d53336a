"""The live page: files that are served as they are, and nothing else is needed to show them."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Asset(NamedTuple):
    """A file of the page."""

    content_type: str
    """For the header of that name"""
    body: bytes
    """Its content"""


_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

INDEX = "index.html"
"""What is served as `/`; it names the others beside itself, and asks for `streams` there too"""

HEADERS = {
    # Pictures are fetched by the script, which may have to send a token, and are shown from memory: blob.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""What every file of the page is served with: nothing comes from elsewhere, and nothing goes there"""


def assets() -> dict[str, Asset]:
    """Every file of the page, by its name."""
    found = {}
    for path in files(__name__).iterdir():
        suffix = path.name.rpartition(".")[2]
        if suffix in _TYPES:
            found[path.name] = Asset(_TYPES[suffix], path.read_bytes())
    return found
