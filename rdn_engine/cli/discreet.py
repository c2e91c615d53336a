"""What a user typed, in messages that quote no credentials of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import typer
from typer.core import TyperGroup

from rdn_engine.config import LinkMethod
from rdn_engine.media.address import hide_sources, without_credentials

_UsageError: type[Any] = typer.BadParameter.__bases__[0]
"""Base of what typer raises for wrong usage; it has a public name in some versions only"""

_EXTRA = re.compile(r"^(Got unexpected extra arguments?(?:\(s\))?) \(.*\)", re.DOTALL)
_TYPED = "rdn_engine.typed"


class DiscreetGroup(TyperGroup):
    """Commands whose usage errors quote no credentials: `rdn-engine rtsp://user:password@...`, and whatever follows a
    blank or an unquoted `&` in an address. More than one source is taken for a glob without quotes. An empty argument
    is a variable that is not set: as a path it would be the current folder.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = list(args)
        with _discreet(ctx):
            check_not_empty(args)
            return super().parse_args(ctx, with_default_address(args))

    def invoke(self, ctx: Any) -> Any:
        with _discreet(ctx):
            return super().invoke(ctx)


def check_not_empty(args: list[str]) -> None:
    """Refuse empty arguments, which no command has a meaning for.

    Args:
        args: as typed, the command first.

    Raises:
        BadParameter: says behind which option one stands.
    """
    waiting, options = "", True  # for a value; whether "--" is still to come
    for one in args:
        options = options and one != "--"
        name, equals, value = one.partition("=")
        if not one or (options and name.startswith("--") and equals and not value):
            option = name or waiting
            where = f"what stands behind {option}" if option else "an argument"
            raise typer.BadParameter(f"{where} is empty; wanted a value, as of a variable that is set")
        waiting = one if options and one.startswith("-") and not equals else ""


def with_default_address(args: list[str]) -> list[str]:
    """Give `--ray` without an address this machine's; typer has no option whose value may be left out.

    Args:
        args: as typed, the command first.
    """
    full: list[str] = []
    for place, one in enumerate(args):
        full.append(one)
        bare = args[place + 1 : place + 2] == [] or args[place + 1].startswith("-")
        if args[0] == "predict" and one == "--ray" and bare:
            full.append("local")
    return full


def _link_value(args: list[str]) -> str | None:
    """What stands behind `--link`, which takes no value, where it says what links."""
    methods = set(get_args(LinkMethod))
    return next((by for option, by in pairwise(args) if option == "--link" and by in methods), None)


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
            by = _link_value(typed)
            error.message += f"; wanted one source, {wanted}" if by is None else f"; wanted --link --link-by {by}"
        missing = None if error.message else getattr(getattr(error, "param", None), "name", None)
        if command == "predict" and missing == "source" and "--ray" in typed:
            error.message = "What follows --ray is an address: name the source before it."
        error.args = (error.message,)
        raise
