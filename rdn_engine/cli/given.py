"""What a user typed: sources that are named elsewhere, so that the list of processes shows no password."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from rdn_engine.errors import ConfigError
from rdn_engine.media.address import hide_addresses

_UsageError: type[Any] = typer.BadParameter.__bases__[0]
"""Base of what typer raises for wrong usage; it has a public name in some versions only"""

_LONGEST = 2**16
"""Bytes of a file that is read for a source: a video given by mistake is not read whole"""


def given_source(text: str) -> str:
    """The source that an argument means.

    Args:
        text: `env:NAME` is the value of an environment variable, `@FILE` the one line of a file, `./@FILE` a file whose
            name begins with `@`; anything else is the source itself.

    Raises:
        ConfigError: for a variable that is not set or empty, and a file that does not hold one line.
        OSError: for a file that cannot be read.
    """
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigError(f"the environment variable {name!r} is not set or empty; wanted a source in it")
        return value
    if text.startswith("@"):
        with open(text[1:], "rb") as file:
            lines = os.fsdecode(file.read(_LONGEST).removeprefix(codecs.BOM_UTF8)).split("\n")
        filled = [line.strip() for line in lines if line.strip()]
        if len(filled) != 1:
            raise ConfigError(f"{text[1:]} holds {len(filled)} lines; wanted one, a source")
        return filled[0]
    return text


class DiscreetGroup(TyperGroup):
    """Commands whose usage errors quote no credentials: `rdn-engine rtsp://user:password@...`, and whatever follows a
    blank or an unquoted `&` in an address. More than one source is taken for a glob without quotes.
    """

    def invoke(self, ctx: Any) -> Any:
        with _discreet():
            return super().invoke(ctx)


@contextlib.contextmanager
def _discreet() -> Iterator[None]:
    try:
        yield
    except _UsageError as error:
        error.message = hide_addresses(error.message)
        command = error.ctx.info_name if error.ctx is not None else None
        if command == "predict" and error.message.startswith("Got unexpected extra argument"):
            error.message += "; wanted one source, a glob in quotes: 'images/*.png'"
        raise
