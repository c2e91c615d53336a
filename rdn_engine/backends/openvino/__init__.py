"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TELEMETRY = "openvino_telemetry"


class _Hidden(MetaPathFinder):
    """Lets the thread that made it find no telemetry module that is not loaded already."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _TELEMETRY and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is hidden from OpenVINO", name=fullname)
        return None


# `import openvino` makes an identifier in the user's home and has a forked child send a message with it, unasked
# (findings/openvino_telemetry_at_import.sh). It does without the module for that where there is none: so it finds none
# while it is imported here for the first time. A program that imported either before had its own choice.
_hidden = _Hidden()
sys.meta_path.insert(0, _hidden)
try:
    import openvino  # noqa: F401
finally:
    sys.meta_path.remove(_hidden)
