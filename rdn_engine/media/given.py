"""Values that are named elsewhere, so that neither a list of processes nor a file of settings shows a password."""

from __future__ import annotations

import codecs
import os
import re

from rdn_engine.errors import ConfigError
from rdn_engine.media.address import without_credentials

_LONGEST = 2**16
"""Bytes of a file that is read for a value: a video given by mistake is not read whole"""

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*|")


def given_value(text: str, what: str = "a source") -> str:
    """The source, or the secret, that a text means.

    Args:
        text: `env:NAME` is the value of an environment variable, `@FILE` the one line of a file, `./@FILE` a file whose
            name begins with `@`; anything else is the value itself.
        what: is wanted, for messages.

    Raises:
        ConfigError: for a variable that is not set or empty, and a file that does not hold one line.
        OSError: for a file that cannot be read.
    """
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        shown = repr(name) if _VARIABLE.fullmatch(name) else "... (not shown, as it is no usual name)"
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigError(f"the environment variable {shown} is not set or empty; wanted {what} in it")
        return value
    if text.startswith("@"):
        filled = [line.strip() for line in _read(text[1:]).split("\n") if line.strip()]
        if len(filled) != 1:
            raise ConfigError(f"{without_credentials(text[1:])} holds {len(filled)} lines; wanted one, {what}")
        return filled[0]
    return text


def _read(name: str) -> str:
    """What is in a file. Its name may be an address, by mistake, which the system's own error quotes."""
    try:
        with open(name, "rb") as file:
            return os.fsdecode(file.read(_LONGEST).removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        number, why = error.errno, error.strerror
    raise OSError(number, why, without_credentials(name))
