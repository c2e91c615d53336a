"""Writes a model repository for Triton Inference Server."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import uuid
from pathlib import Path

from rdn_engine.bundle.directory import Bundle
from rdn_engine.errors import ConfigError
from rdn_engine.plain import check
from rdn_engine.serve.admission import check_live
from rdn_engine.serve.triton.options import TritonOptions

CANDIDATES_A_STREAM = 16
"""Sequences that Triton lets through to the model, for each stream that the model takes. Beyond its own number Triton
queues in silence; the model refuses in words, and is there to be asked."""

_CONFIG = """\
# Written by `rdn-engine export-triton`. A frame and its flags come in, the results that became ready go out; every
# correlation id is a stream with a window of its own, of which KNOWN says what the client knows (docs/triton.md).
name: {name}
backend: "python"
max_batch_size: {max_batch}

input [
  {{ name: "FRAME" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] allow_ragged_batch: true optional: true }},
  {{ name: "KNOWN" data_type: TYPE_INT64 dims: [ 2 ] }},
  {{ name: "FRAME_INDEX" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "PTS" data_type: TYPE_FP64 dims: [ 1 ] }},
  {{ name: "PIXEL_ASPECT" data_type: TYPE_FP64 dims: [ 1 ] }}
]
output [
  {{ name: "SESSION" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "RESULTS" data_type: TYPE_UINT8 dims: [ -1 ] }}
]

# max_sequence_idle_microseconds is idle_seconds of the parameter below; max_candidate_sequences is {factor} times its
# max_streams, so that a stream too many is refused by the model, and not queued without a word.
sequence_batching {{
  max_sequence_idle_microseconds: {idle}
  oldest {{
    max_candidate_sequences: {candidates}
    preferred_batch_size: [ {max_batch} ]
  }}
}}

instance_group [ {{ kind: KIND_CPU count: {instances} }} ]

parameters {{ key: "rdn_engine" value {{ string_value: {options} }} }}
parameters {{ key: "class_names" value {{ string_value: {class_names} }} }}
"""


def export_triton(engines: Path, output: Path, options: TritonOptions, *, name: str) -> Path:
    """Write a model into a repository: config.pbtxt, and version 1 with model.py and a copy of the engine directory.

    Args:
        engines: directory, whose files are checked.
        output: the repository, made where it is not there; other models in it stay.
        options: how the model is served.
        name: of the model, as clients call it.

    Returns:
        The folder of the model.

    Raises:
        BundleError: for a directory that is missing or damaged.
        ConfigError: for a name that is no folder's or is there, for a place in `engines`, and for dials that the model
            does not have, or that no live stream can have.
        OSError: where it cannot be written; then nothing of it is there.
    """
    check(re.fullmatch(r"\w[\w.-]*", name) is not None, "name", name, "letters, digits, '_', '-' and '.'")
    bundle = Bundle.open(engines)
    check_live(bundle.config.dials.turned(options.dials))
    folder = output / name
    if bundle.directory.resolve() in (output.resolve(), *output.resolve().parents):
        raise ConfigError(f"{output} is in {engines}, which is copied into it; wanted a place outside")
    if folder.exists():
        raise ConfigError(f"{folder} is there; wanted another name, or a repository without it")
    config = _CONFIG.format(
        name=json.dumps(name),
        max_batch=options.max_batch,
        idle=round(options.idle_seconds * 1e6),
        factor=CANDIDATES_A_STREAM,
        candidates=CANDIDATES_A_STREAM * options.max_streams,
        instances=options.instances,
        options=json.dumps(options.to_json()),
        class_names=json.dumps(json.dumps(bundle.config.class_names)),
    )
    was_there = output.exists()
    output.mkdir(parents=True, exist_ok=True)
    part = output / f".{uuid.uuid4().hex}.part"  # so that no server meets half a model
    try:
        version = part / "1"
        version.mkdir(parents=True)
        (part / "config.pbtxt").write_text(config, encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name("model.py"), version / "model.py")
        shutil.copytree(bundle.directory, version / "engines")
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if not was_there:
            with contextlib.suppress(OSError):  # another model may be there by now
                output.rmdir()
        raise
    return folder
