"""Exit codes, and the one line on stderr that comes with them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import typer

from rdn_engine.cli.signals import Interrupts
from rdn_engine.cli.streams import StdoutClosed, say
from rdn_engine.errors import (
    AdmissionRefused,
    BackendUnavailable,
    BundleError,
    ConfigError,
    DatasetError,
    FrameError,
    RDNError,
    ResultError,
    VideoError,
    VideoWriteError,
)

OTHER_ERROR, USAGE, BAD_INPUT, BAD_BUNDLE, NO_BACKEND, MISMATCH, NOT_WHOLE = 1, 2, 3, 4, 5, 6, 7
BY_SIGNAL = 128
"""Added to the number of the signal that ended the process, as shells do"""
INTERRUPTED, READER_GONE = BY_SIGNAL + 2, BY_SIGNAL + 13
"""As SIGINT and SIGPIPE would end it"""

_OF_ERRORS: tuple[tuple[type[Exception], int], ...] = (
    (StdoutClosed, READER_GONE),
    (ConfigError, USAGE),
    (AdmissionRefused, USAGE),
    (VideoWriteError, OTHER_ERROR),
    (VideoError, BAD_INPUT),
    (FrameError, BAD_INPUT),
    (ResultError, BAD_INPUT),
    (DatasetError, BAD_INPUT),
    (BundleError, BAD_BUNDLE),
    (BackendUnavailable, NO_BACKEND),
    (RDNError, OTHER_ERROR),
    (OSError, OTHER_ERROR),
)
CODES_HELP = (
    "Exit codes: 0 done; 1 another error (a file that cannot be written); 2 wrong usage or a dial out of range; "
    "3 bad input; 4 bad engine directory; 5 backend or device not available; 6 verify found a mismatch; "
    "7 under --strict: the input is incomplete, or frames have no result; "
    "129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM: what was written so far is kept; "
    "141 the reader of stdout has gone."
)

RUN_CODES_HELP = (
    "Exit codes: 0 a signal came and everything was delivered, or all streams came to a good end; 1 not everything was "
    "delivered in time, or a file or a port cannot be had; 2 wrong usage or FILE; 3 a stream ended because it or its "
    "source failed, where FILE has no `http`; 4 bad engine directory; 5 backend, device or library not available; "
    "128 and more: a second signal came."
)


@contextlib.contextmanager
def exit_codes(tell: Callable[[str], None] = say) -> Iterator[None]:
    """Every error that is expected becomes one line on stderr and its exit code.

    Args:
        tell: writes the line.
    """
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except (RDNError, OSError) as error:
        if not isinstance(error, StdoutClosed):  # `| head` is no mistake
            tell(_words(error))
        raise typer.Exit(next(code for kind, code in _OF_ERRORS if isinstance(error, kind))) from None


def leave(interrupts: Interrupts, not_whole: bool) -> None:
    """Say what broke a run off, or that its input was not whole, and leave with the exit code.

    Args:
        interrupts: of the run.
        not_whole: whether that is to be said.
    """
    if interrupts.number is not None:
        say(f"interrupted by {signal.Signals(interrupts.number).name}; the results so far are kept")
        interrupts.end_without_reader(BY_SIGNAL + interrupts.number)
        raise typer.Exit(BY_SIGNAL + interrupts.number)
    if not_whole:
        say("--strict: the input is incomplete, or frames of it have no result")
        raise typer.Exit(NOT_WHOLE)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
