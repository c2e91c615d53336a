"""Miniature data sets, written file by file, for the tests of their readers."""

from PIL import Image

from training.data.check import check_dataset


def picture(path, width=32, height=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 150)).save(path)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


ENCODINGS = ("utf-8-sig", "utf-16", "utf-32")
"""Each begins with a byte order mark."""


def encode(encoding, *paths):
    """Text files again, in another encoding."""
    for path in paths:
        path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)


def rows(dataset, *fields):
    return [tuple(getattr(a, f) for f in fields) for a in dataset.annotations]


def nothing_wrong(dataset, images):
    return list(check_dataset(dataset, "data.json", images)) == []
