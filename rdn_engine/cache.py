"""Where what was found out on this machine is kept for the next time."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "RDN_ENGINE_CACHE"
"""Environment variable with the directory; else XDG_CACHE_HOME or ~/.cache, /rdn_engine"""


def cache_directory() -> Path:
    """The directory, which need not be there and may not be writable."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rdn_engine"
