"""`rdn-engine tune`: which dials and options meet a budget on this machine, and with what accuracy."""

from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
import typer

from rdn_engine.bundle.directory import Bundle
from rdn_engine.bundle.manifest import Manifest
from rdn_engine.cli.evaluate import check_library
from rdn_engine.cli.exits import exit_codes
from rdn_engine.cli.progress import spinner
from rdn_engine.cli.streams import emit
from rdn_engine.cli.tables import new_table, tables_text
from rdn_engine.config import Dials, RDNConfig
from rdn_engine.cpus import Others, available_cpus
from rdn_engine.dials_file import DialsFile, write_dials_file
from rdn_engine.errors import ConfigError
from rdn_engine.frame import Image
from rdn_engine.host.fastest import CANDIDATES
from rdn_engine.kernels.cpu import Precision, RingPrecision
from rdn_engine.version import version

if TYPE_CHECKING:
    from rich.table import Table

    from rdn_engine.tuning.accuracy import Accuracy
    from rdn_engine.tuning.space import Options
    from rdn_engine.tuning.tune import Proposal, Row

PICTURES = 8
"""Of a video that times are measured with"""
CAMERA = (720, 1280)
"""Height and width of the noise that times are measured with where no picture is given"""
LONGEST_BUDGET = 3600.0
"""Seconds"""
BUSY = 0.05
"""Of the CPUs: where others keep fewer busy that is not worth a word"""


def tune(
    engines: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Engine directories: one model, in one or more precisions.")
    ],
    budget: Annotated[str, typer.Option(metavar="TIME", help="From one frame of a stream to its next: 100ms, 0.04s.")],
    streams: Annotated[int, typer.Option(help="Streams at once on this machine.")] = 1,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CocoVID annotations (docs/datasets.md), to score settings on.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where its file names start; the folder of FILE by default.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Annotated frames that are used at most, whole videos.")] = 500,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pictures to measure times with; those of --data by default.")
    ] = None,
    longest_wait: Annotated[
        int | None, typer.Option("--wait", metavar="FRAMES", help="That a result may come late at most; 0 for at once.")
    ] = None,
    ring_precision: Annotated[RingPrecision, typer.Option(help="Of what windows keep.")] = "float32",
    output: Annotated[Path, typer.Option(metavar="FILE", help="The dials file.")] = Path("dials.json"),
) -> None:
    """Measure this machine, and propose dials, backend and threads that meet a budget in 99 of 100 rounds.

    With --data the most accurate ones, else those that are turned down least. Nothing else should run meanwhile.
    """
    from rdn_engine.tuning.machine import LiveMachine
    from rdn_engine.tuning.space import Space
    from rdn_engine.tuning.tune import tune as find

    with exit_codes(), tempfile.TemporaryDirectory(prefix="rdn-engine-") as folder, spinner() as report:
        budget_ms = milliseconds(budget)
        for name, got, least in (("streams", streams, 1), ("frames", frames, 1), ("wait", longest_wait or 0, 0)):
            if got < least:
                raise ConfigError(f"--{name} is {got}; wanted {least} or more")
        if output.is_dir() or not output.parent.is_dir():
            raise ConfigError(f"--output is {output}; wanted a file, in a folder that is there")
        configs = [Bundle.open(one).config for one in engines]
        _check_one_model(engines, configs)
        accuracy = None
        if data is not None:
            accuracy = _accuracy(data, images or data.parent, frames, Path(folder), configs[0].class_names)
        pictures = _pictures(video, accuracy)
        machine = LiveMachine(engines, pictures, streams, ring_precision)
        space = Space.of(configs[0], math.inf if longest_wait is None else longest_wait)

        def score(options: Options, settings: Sequence[Dials]) -> list[float]:
            assert accuracy is not None
            return accuracy(options.bundle, machine.model(options), settings, report)

        others = Others()
        try:
            proposal = find(machine, _ways(len(engines)), space, budget_ms, score if accuracy else None, report)
        except ConfigError as error:
            disturbed = _disturbed(others.busy(), others.of)
            raise ConfigError(f"{error}; {disturbed}" if disturbed else str(error)) from None
        busy = others.busy()
        precisions = [Manifest.read(one).precision for one in engines]
        chosen = proposal.chosen
        assert chosen.measured is not None
        measured = {
            "engines": str(engines[chosen.options.bundle]),
            "budget_ms": budget_ms,
            "streams": streams,
            "cpus": available_cpus(),
            "others": {"busy_cpus": round(busy, 2), "of": others.of},
            "p50_ms": chosen.measured.p50,
            "p99_ms": chosen.measured.p99,
            "rounds": len(chosen.measured.ms),
            "AP50": chosen.accuracy,
            "frames": None if accuracy is None else accuracy.frames,
            "version": version(),
        }
        write_dials_file(output, _file(chosen, precisions, ring_precision, measured))
    emit(tables_text(_table(proposal, precisions, budget_ms)))
    emit(f"* meets {budget_ms:g} ms with {streams} stream{'s' * (streams > 1)}, and is in {output}\n")
    if any(row.p99 > budget_ms for row in proposal.rows):
        emit(f"! takes longer than {budget_ms:g} ms\n")
    if disturbed := _disturbed(busy, others.of):
        emit(f"{disturbed}\n")


def _disturbed(busy: float, cpus: int) -> str:
    """What others took of the machine; nothing where that was little."""
    said = f"meanwhile others kept {busy:.1f} of {cpus} CPUs busy, so times may be too long"
    return said if busy >= BUSY * cpus else ""


def milliseconds(budget: str) -> float:
    """A time as people write it.

    Args:
        budget: a number with `ms` or `s` behind it.

    Raises:
        ConfigError: for anything else, and for a time that is not above 0 or beyond LONGEST_BUDGET.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s)\s*", budget)
    found = float(match[1]) * (1.0 if match[2] == "ms" else 1e3) if match else 0.0
    if not 0 < found <= 1e3 * LONGEST_BUDGET:
        raise ConfigError(f"--budget is {budget!r}; wanted 100ms or 0.1s, say, above 0 and at most {LONGEST_BUDGET:g}s")
    return found


def _check_one_model(engines: Sequence[Path], configs: Sequence[RDNConfig]) -> None:
    for place, config in zip(engines[1:], configs[1:], strict=True):
        if config != configs[0]:
            raise ConfigError(f"{place} is another model than {engines[0]}; wanted the same in another precision")


def _accuracy(data: Path, images: Path, most: int, folder: Path, class_names: tuple[str, ...]) -> Accuracy:
    from rdn_engine.evaluation.annotated import Annotated as Annotations
    from rdn_engine.evaluation.boxes import label_map
    from rdn_engine.evaluation.coco_vid import read_dataset
    from rdn_engine.evaluation.images import read_image
    from rdn_engine.tuning.accuracy import Accuracy, part

    check_library()
    taken = part(Annotations(data.name, read_dataset(data)), most)
    label_map(taken.dataset, class_names)  # refuses other classes, minutes before they are scored
    return Accuracy(taken, lambda frame: read_image(images, frame), folder)


def _pictures(video: Path | None, accuracy: Accuracy | None) -> list[Image]:
    """What times are measured with: of one size."""
    if video is not None:
        from rdn_engine.media.source import open_source

        with open_source(video) as source:
            return [frame.image for frame in itertools.islice(source, PICTURES)]
    if accuracy is not None:
        return accuracy.pictures(PICTURES)
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*CAMERA, 3), np.uint8) for _ in range(PICTURES)]


def _ways(bundles: int) -> list[Options]:
    """Every way of running the models that this machine may have."""
    from rdn_engine.tuning.space import Options, thread_counts

    backends, counts = [name for name, _ in CANDIDATES], thread_counts(available_cpus())
    every = itertools.product(range(bundles), get_args(Precision), backends, counts)
    return [Options(bundle, backend, threads, precision) for bundle, precision, backend, threads in every]


def _file(chosen: Row, precisions: Sequence[str], ring: RingPrecision, measured: dict[str, Any]) -> DialsFile:
    options, dials = chosen.options, chosen.dials
    return DialsFile(
        dials={
            "window": dials.window,
            "look_ahead": dials.frames_ahead,
            "num_support": dials.num_support,
            "num_reference": dials.num_reference,
            "advanced_ratio": dials.advanced_ratio,
            "interval": dials.interval,
        },
        precision=precisions[options.bundle],
        backend=options.backend,
        threads=options.threads,
        relation_precision=options.relation_precision,
        ring_precision=ring,
        measured=measured,
    )


def _table(proposal: Proposal, precisions: Sequence[str], budget_ms: float) -> Table:
    from rdn_engine.tuning.space import wait

    table = new_table("  p99, ms", "AP50", "wait", "T", "L", "K", "N", "r", "n", "run with")
    # Only the last column is words: the others are not broken, and a row is one line of 80 columns.
    table.padding, table.show_edge, table.pad_edge = (0, 1, 0, 0), False, False
    for column in table.columns[:-1]:
        column.no_wrap = True
    for row in proposal.rows:
        options, dials = row.options, row.dials
        mark = "*" if row == proposal.chosen else "!" if row.p99 > budget_ms else " "
        relations = "" if options.relation_precision == "float32" else " + bf16"
        table.add_row(
            f"{mark} {row.p99:.1f}",
            "-" if row.accuracy is None else f"{row.accuracy:.1f}",
            str(wait(dials)),
            str(dials.window),
            str(dials.frames_ahead),
            str(dials.num_support),
            str(dials.num_reference),
            f"{dials.advanced_ratio:g}",
            str(dials.interval),
            f"{precisions[options.bundle]}{relations}, {options.backend} x{options.threads}",
        )
    return table
