"""OpenVINO on the CPU."""

import sys

# `import openvino` makes an identifier in the user's home and has a forked child send a message with it, unasked
# (findings/openvino_telemetry_at_import.sh). It does without the module for that where there is none: so there is none
# here, while it is imported for the first time. A program that imported it before had its own choice.
_TELEMETRY = "openvino_telemetry"
_theirs = sys.modules.get(_TELEMETRY)
sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
try:
    import openvino  # noqa: F401
finally:
    if _theirs is None:
        del sys.modules[_TELEMETRY]
    else:
        sys.modules[_TELEMETRY] = _theirs
