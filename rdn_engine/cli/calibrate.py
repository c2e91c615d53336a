"""`rdn-engine calibrate`: a bundle whose confidences say how often they are right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdn_engine.bundle.directory import Bundle, write_calibrated
from rdn_engine.cli.evaluate import LEAST, check_library, pairs
from rdn_engine.cli.exits import exit_codes
from rdn_engine.cli.options import EnginesArgument
from rdn_engine.cli.streams import emit
from rdn_engine.errors import BundleError, DatasetError


def calibrate(
    engines: EnginesArgument,
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="What it found: `predict --output`.")],
    data: Annotated[Path, typer.Option(metavar="FILE", help="CocoVID annotations; docs/datasets.md.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The calibrated engine directory.")],
    video: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE=NAME", help="As `evaluate` takes it; may be repeated.")
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Write it even where frames held out do not bear it out.")
    ] = False,
) -> None:
    """Write DIR anew with confidences that are as often right as they say, on videos like those annotated.

    RESULTS are of DIR itself, of frames that were all encoded, without --threshold and without --link. AP stays as it
    is.
    """
    from rdn_engine.evaluation.annotated import Annotated as Annotations
    from rdn_engine.evaluation.coco_vid import read_dataset
    from rdn_engine.evaluation.join import join
    from rdn_engine.evaluation.lines import read_lines

    with exit_codes():
        check_library()
        from rdn_engine.evaluation.calibrate import calibrate as fit
        from rdn_engine.evaluation.calibrate import check_calibration

        bundle = Bundle.open(engines)
        if bundle.manifest.confidence is not None:
            raise BundleError(f"{engines} is calibrated already; wanted the bundle that it was made from")
        annotated = Annotations(data.name, read_dataset(data))
        joined = join(read_lines(results), annotated.dataset, pairs(video or []))
        some = [placed.result for placed in joined.placed if len(placed.result)]
        if any(result.tracker_id is not None for result in some):
            raise DatasetError("the results are linked, which changes confidences; wanted them without --link")
        if others := sum(not result.encoded for result in some):
            raise DatasetError(
                f"{others} of {len(some)} frames have results of those beside them, which changes confidences; wanted "
                "them with --interval 1 --still 0"
            )
        least = min((float(result.confidence.min()) for result in some), default=0.0)
        if least > LEAST:
            raise DatasetError(f"no confidence is below {least:.3f}; wanted results without --threshold")
        made = fit(joined.found, annotated, bundle.config.class_names)
        if not accept:
            check_calibration(made)
        write_calibrated(bundle, output, made)
        test = made.test
        emit(
            f"calibration error {test.error_before:.4f} -> {test.error_after:.4f} on {test.tested_frames} frames held "
            f"out of {test.tested_frames + test.fitted_frames}; AP50 {test.ap50_before:.2f} -> {test.ap50_after:.2f}\n"
        )
