"""`rdn-engine run`: many live streams from one file, until a signal ends them."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from rdn_engine.cli.exits import BAD_INPUT, OTHER_ERROR, exit_codes
from rdn_engine.cli.signals import Interrupts
from rdn_engine.cli.streams import say, tell

WAIT_SECONDS = 0.2
"""Between two looks at signals, and at whether all streams have ended"""


def run(
    settings: Annotated[Path, typer.Argument(metavar="FILE", help="Streams, outputs and the rest, in YAML.")],
    log: Annotated[Literal["text", "json"], typer.Option(help="How the lines on stderr look.")] = "text",
    check: Annotated[bool, typer.Option("--check", help="Only say whether FILE can be used.")] = False,
) -> None:
    """Serve the live streams of FILE (docs/production.md).

    It ends when a signal says so, with exit code 0 where everything was delivered in time, or when all streams have
    ended and FILE has no `http`.
    """
    from rdn_engine.service.config import read_settings

    with exit_codes(), Interrupts() as interrupts:
        asked = read_settings(settings)
        if check:
            tell(f"{settings}: {len(asked.streams)} streams, {len(asked.outputs)} outputs\n")
            return
        # Late, so that a file is checked without them.
        from rdn_engine.service.http import HttpServer
        from rdn_engine.service.service import Service
        from rdn_engine.service.supervisor import Supervisor

        with _logging(log), contextlib.ExitStack() as stack:
            service = Service(asked)
            interrupts.patient = True
            stack.callback(service.close, drain=False, deadline_s=0.0)
            if asked.http is not None:
                server = HttpServer(service, asked.http)
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
            say(f"stopped by {signal.Signals(interrupts.number).name}{late}")
        if not in_time:
            raise typer.Exit(OTHER_ERROR)
        if interrupts.number is None and service.badly_ended:
            say(f"{service.badly_ended} streams ended because they, or their source, failed")
            raise typer.Exit(BAD_INPUT)


@contextlib.contextmanager
def _logging(form: Literal["text", "json"]) -> Iterator[None]:
    """What the package logs, from INFO on, as lines on stderr."""
    from rdn_engine.service.logs import JsonFormatter, TextFormatter

    logger, handler = logging.getLogger("rdn_engine"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
