"""What a user typed: sources that are named elsewhere, so that the list of processes shows no password."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from rdn_engine.errors import ConfigError
from rdn_engine.media.address import hide_sources, without_credentials

_UsageError: type[Any] = typer.BadParameter.__bases__[0]
"""Base of what typer raises for wrong usage; it has a public name in some versions only"""

_LONGEST = 2**16
"""Bytes of a file that is read for a source: a video given by mistake is not read whole"""

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*|")
_EXTRA = re.compile(r"^(Got unexpected extra arguments?(?:\(s\))?) \(.*\)", re.DOTALL)
_TYPED = "rdn_engine.typed"


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
        shown = repr(name) if _VARIABLE.fullmatch(name) else "... (not shown, as it is no usual name)"
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigError(f"the environment variable {shown} is not set or empty; wanted a source in it")
        return value
    if text.startswith("@"):
        filled = [line.strip() for line in _read(text[1:]).split("\n") if line.strip()]
        if len(filled) != 1:
            raise ConfigError(f"{without_credentials(text[1:])} holds {len(filled)} lines; wanted one, a source")
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


class DiscreetGroup(TyperGroup):
    """Commands whose usage errors quote no credentials: `rdn-engine rtsp://user:password@...`, and whatever follows a
    blank or an unquoted `&` in an address. More than one source is taken for a glob without quotes.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = list(args)
        with _discreet(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _discreet(ctx):
            return super().invoke(ctx)


@contextlib.contextmanager
def _discreet(ctx: Any) -> Iterator[None]:
    typed: list[str] = ctx.meta[_TYPED]
    try:
        yield
    except _UsageError as error:
        error.message = hide_sources(error.message, typed)
        command, wanted = error.ctx.info_name if error.ctx is not None else None, "a glob in quotes: 'images/*.png'"
        # What follows a blank in an address without quotes is an argument of its own.
        if any("://" in one or without_credentials(one) != one for one in typed):
            error.message, wanted = _EXTRA.sub(r"\1 (...)", error.message), "an address in quotes"
        if command == "predict" and _EXTRA.match(error.message):
            error.message += f"; wanted one source, {wanted}"
        error.args = (error.message,)
        raise
