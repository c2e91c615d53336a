"""Which version this is."""

from __future__ import annotations


def version() -> str:
    """The installed package's version; `0+source` where it runs from a checkout that was never installed."""
    # It reads metadata with the parsers of e-mail, which take a tenth of the time that importing the package does.
    from importlib import metadata

    try:
        return metadata.version("rdn-engine")
    except metadata.PackageNotFoundError:
        return "0+source"
