"""`rdn-engine run`: many live streams from one file, until a signal ends them."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sized
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from rdn_engine.cli.exits import BAD_INPUT, OTHER_ERROR, exit_codes
from rdn_engine.cli.signals import Interrupts
from rdn_engine.cli.streams import STDERR, say, tell
from rdn_engine.errors import ConfigError

WAIT_SECONDS = 0.2
"""Between two looks at signals, and at whether all streams have ended"""
LOG_SECONDS = 2.0
"""At the end, for lines of the log that wait for whoever reads them"""


def run(
    settings: Annotated[Path, typer.Argument(metavar="FILE", help="Streams, outputs and the rest, in YAML.")],
    log: Annotated[Literal["text", "json"], typer.Option(help="How the lines on stderr look.")] = "text",
    check: Annotated[
        bool, typer.Option("--check", help="Start nothing: only say whether FILE, and what it names here, can be used.")
    ] = False,
) -> None:
    """Serve the live streams of FILE (docs/service.md).

    It ends when a signal says so, or when all streams have ended and FILE has no `http`.
    """
    from rdn_engine.service.config import read_settings
    from rdn_engine.service.preflight import check_all

    with _logging(log), exit_codes(_teller(log)), Interrupts() as interrupts:
        asked = read_settings(settings)
        if not asked.streams and asked.http is None:
            raise ConfigError(f"{settings}: there are no streams; wanted one, or http, over which they are added")
        if check:
            check_all(asked)
            tell(f"{settings} can be used: {_many(asked.streams, 'stream')}, {_many(asked.outputs, 'output')}\n")
            return
        # Late, so that a file is checked without them.
        from rdn_engine.service.http import HttpServer, listen
        from rdn_engine.service.service import Service
        from rdn_engine.service.supervisor import Supervisor

        with contextlib.ExitStack() as stack:
            # Before the streams, whose cameras would be called and whose files begun for nothing.
            listener = None if asked.http is None else stack.enter_context(listen(asked.http))
            service = Service(asked)
            interrupts.patient = True
            stack.callback(service.close, drain=False, deadline_s=0.0)
            if asked.http is not None:
                server = HttpServer(service, asked.http, listener)
                stack.callback(server.close)
                logging.getLogger("rdn_engine.service").info("answers at %s", server.address)
            supervisor = Supervisor()
            supervisor.ready()
            while interrupts.number is None:
                if service.wait(WAIT_SECONDS) and asked.http is None:
                    break
                supervisor.alive(service.stuck() is None)
            supervisor.stopping()
            in_time = service.close(drain=True, deadline_s=asked.stop_seconds)
        if interrupts.number is not None:
            late = "" if in_time else f"; not all was delivered in {asked.stop_seconds:g} s, and the rest is dropped"
            _teller(log, logging.INFO if in_time else logging.WARNING)(
                f"stopped by {signal.Signals(interrupts.number).name}{late}"
            )
        if not in_time:
            raise typer.Exit(OTHER_ERROR)
        if interrupts.number is None and service.badly_ended:
            _teller(log)(f"{service.badly_ended} streams ended because they, or their source, failed")
            raise typer.Exit(BAD_INPUT)


def _many(things: Sized, what: str) -> str:
    return f"{len(things)} {what}" if len(things) == 1 else f"{len(things)} {what}s"


def _teller(form: Literal["text", "json"], level: int = logging.ERROR) -> Callable[[str], None]:
    """What says how the process ends: whoever reads JSON gets nothing else."""
    return _say_last if form == "text" else partial(logging.getLogger("rdn_engine.service").log, level)


def _say_last(message: str) -> None:
    for handler in logging.getLogger().handlers:
        handler.flush()  # what was logged stands before it
    say(message)


@contextlib.contextmanager
def _logging(form: Literal["text", "json"]) -> Iterator[None]:
    """What the package logs, from INFO on, and warnings of others, as lines on stderr."""
    from rdn_engine.service.logs import JsonFormatter, TextFormatter, WaitlessHandler

    everybody, package, handler = logging.getLogger(), logging.getLogger("rdn_engine"), WaitlessHandler(STDERR)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    before = package.level
    everybody.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        everybody.removeHandler(handler)
        package.setLevel(before)
        handler.finish(LOG_SECONDS)
