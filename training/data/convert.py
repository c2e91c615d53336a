"""Converts annotated video sets to CocoVID JSON (docs/datasets.md).

    python training/data/convert.py clips/train --output train.json
    python training/data/convert.py annotations.xml --images frames --output data.json
    python training/data/convert.py ILSVRC2015 --split train --det --output train.json
    python training/data/convert.py street.txt --format darklabel --images frames --output data.json

What the path leads to is found out; --format says it. Boxes are cut at the frame; those of which nothing is left are
dropped, and counted. Exit code 1 where the set cannot be converted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rdn_engine.errors import DatasetError, RDNError
from rdn_engine.evaluation.coco_vid import Category, Dataset, write_dataset
from training.arguments import given_path
from training.data.builder import Builder
from training.data.formats import FORMATS, find_format
from training.data.readers.base import Option, read_names


def convert(path: Path, name: str | None = None, **options: Any) -> Builder:
    """Reads a data set of any layout.

    Args:
        path: of the annotation file or the folder.
        name: of the format; None finds it.
        options: of that format's reader, by name.

    Returns:
        The data set, how many boxes were cut or dropped, and notes of what was assumed.

    Raises:
        DatasetError: the layout is not known, does not take an option, or cannot be read.
    """
    if name is not None and name not in FORMATS:
        raise DatasetError(f"--format {name}; wanted one of {', '.join(FORMATS)}")
    format_ = FORMATS[name] if name is not None else find_format(path)
    takes = {option.name: option for option in format_.options}
    for option in options:
        if option not in takes:
            flags = ", ".join(o.flag for o in takes.values()) or "none"
            raise DatasetError(f"--{option.replace('_', '-')} is no option of {format_.name}; it takes {flags}")
    builder = format_.read(path, **options)
    if name is None:
        builder.notes.insert(0, f"{path} is read as {format_.name}")
    return builder


def with_classes(dataset: Dataset, names: list[str]) -> Dataset:
    """The same data set with the class list of a model, of which the data may lack some.

    Args:
        dataset: whose classes are all among `names`.
        names: of the classes, in the model's order.

    Returns:
        A data set whose categories are 1, 2, ... with these names.

    Raises:
        DatasetError: the data set has a class that is not among them.
    """
    extra = sorted(set(dataset.class_names) - set(names))
    if extra:
        raise DatasetError(f"the data set has {', '.join(extra)}, which --classes lacks; wanted every class of the set")
    number = {category.id: names.index(category.name) + 1 for category in dataset.categories}
    annotations = [replace(a, category_id=number[a.category_id]) for a in dataset.annotations]
    return replace(dataset, categories=[Category(i, name) for i, name in enumerate(names, 1)], annotations=annotations)


def _parser() -> argparse.ArgumentParser:
    """One flag for each option of a reader; readers that share one share its meaning."""
    parser = argparse.ArgumentParser(description="Converts annotated video sets to CocoVID JSON (docs/datasets.md).")
    parser.add_argument("path", type=given_path, help="the annotation file, or the folder of the data set")
    parser.add_argument("--output", type=given_path, required=True, help="the JSON file to write")
    parser.add_argument("--format", choices=tuple(FORMATS), help="what the path leads to; found out by default")
    parser.add_argument("--classes", type=given_path, help="a model's class names, one in each line, for the set")
    options: dict[str, tuple[list[str], list[Option]]] = {}
    for one in FORMATS.values():
        for option in one.options:
            names, same = options.setdefault(option.flag, ([], []))
            names.append(one.name)
            same.append(option)
    for flag, (names, same) in options.items():
        text = f"{', '.join(names)}: {'; or '.join(dict.fromkeys(o.help for o in same))}"
        if same[0].kind is None:
            parser.add_argument(flag, action="store_const", const=True, help=text)
        else:
            parser.add_argument(flag, type=same[0].kind, help=text)
    return parser


def main() -> None:
    arguments = vars(_parser().parse_args())
    path, output, name, classes = (arguments.pop(key) for key in ("path", "output", "format", "classes"))
    given = {key: value for key, value in arguments.items() if value is not None}
    try:
        builder = convert(path, name, **given)
        dataset = builder.dataset if classes is None else with_classes(builder.dataset, read_names(classes))
        write_dataset(dataset, output)
    except (RDNError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    counts = (len(dataset.videos), len(dataset.frames), len(dataset.annotations))
    print("{}: {} videos, {} frames, {} annotations".format(output, *counts))
    print(f"{builder.cut} boxes cut at the edge of their frame, {builder.dropped} dropped (nothing of them inside)")
    for note in builder.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
