"""Frozen dataclasses from and to plain values (numbers, strings, lists), checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from rdn_engine.errors import ConfigError

SECRET = {"secret": True}
"""`metadata` of a dataclass field whose value no message shows"""


def check(ok: bool, name: str, got: object, wanted: object) -> None:
    """The one form of a message about a value.

    Args:
        ok: whether the value is right.
        name: of the value, as its owner calls it.
        got: the value.
        wanted: what it may be, in words.

    Raises:
        ConfigError: where it is not right.
    """
    if not ok:
        raise ConfigError(f"{name} is {shown(got)}; wanted {wanted}")


def shown(value: object) -> str:
    """A value for a message: as Python writes it, which refuses whole numbers of more than 4300 digits.

    Args:
        value: anything.
    """
    try:
        return repr(value)
    except ValueError:
        return f"{type(value).__name__} with thousands of digits"


def is_finite(value: object) -> bool:
    """Whether a value is a number that a float holds: no bool, not nan or infinite, no whole number beyond 1.8e308.

    Args:
        value: anything.
    """
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


LONGEST_WAIT = 1e6
"""Seconds; threads cannot wait for any number of them, and longer is for ever"""


def seconds_to_wait(name: str, timeout: float | None) -> float | None:
    """A timeout as threads take it.

    Args:
        name: of the argument, in messages.
        timeout: seconds, 0 or more; None waits for ever.

    Returns:
        The same; None above LONGEST_WAIT.

    Raises:
        ConfigError: for anything else.
    """
    if timeout is None:
        return None
    is_number = isinstance(timeout, numbers.Real) and not isinstance(timeout, bool)
    check(is_number and timeout >= 0, name, timeout, "seconds, 0 or more, or None")
    return None if timeout > LONGEST_WAIT else float(timeout)


def check_fields(config: object, section: str, **ranges: tuple[float, float]) -> None:
    """Bring every field of a frozen dataclass to its annotated type: a list becomes a tuple, a numpy number a Python
    one.

    Args:
        config: a dataclass that is being made; its fields are set in place.
        section: what stands before a field's name in messages.
        ranges: closed range of a number, or of the numbers in a tuple, by the field's name.

    Raises:
        ConfigError: names the field that is of another type, or outside its range.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = _field(type(config), name, hint, getattr(config, name), f"{section}.{name}")
        object.__setattr__(config, name, value)  # frozen; a list has become a tuple, a numpy number a Python one
        if name in ranges and value is not None:
            low, high = ranges[name]
            numbers_in = value if isinstance(value, tuple) else (value,)
            check(all(low <= v <= high for v in numbers_in), f"{section}.{name}", value, f"{low:.12g}..{high:.12g}")


def to_plain(value: Any) -> Any:
    """Tuples as lists, as JSON and YAML hold them.

    Args:
        value: dicts, lists and tuples, however nested; anything else stays as it is.
    """
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def check_names(path: str, given: Iterable[object], known: Iterable[str]) -> None:
    """Check that the fields of a mapping are known ones.

    Args:
        path: what has them, for the message.
        given: the names that it has.
        known: those that it may have.

    Raises:
        ConfigError: names those that are unknown, and for each the known one that is written most like it.
    """
    known = sorted(known)
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        near = [one for name in unknown for one in difflib.get_close_matches(name, known, 1)]
        meant = f", perhaps for {', '.join(near)}" if near else ""
        raise ConfigError(f"{path} has unknown fields {unknown}{meant}; known are {known}")


_T = TypeVar("_T")


def from_plain(cls: type[_T], data: Any, path: str) -> _T:
    """A dataclass from a mapping of plain values, as YAML and JSON hold them; nested ones likewise.

    Args:
        cls: the dataclass.
        data: fields left out keep their defaults.
        path: what stands before a field's name in messages; empty for nothing.

    Raises:
        ConfigError: names the field, by its path from `path`, that is unknown, missing or of another type.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is {shown(data)}; wanted a mapping")
    hints = _hints(typing.cast("Any", cls))
    check_names(path, data, hints)
    required = [f for f in dataclasses.fields(typing.cast("Any", cls)) if f.default is f.default_factory]
    missing = [f.name for f in required if f.name not in data]
    if missing:
        raise ConfigError(f"{path} lacks {missing}; known are {sorted(hints)}")
    return cls(
        **{
            name: _field(cls, name, hints[name], value, f"{path}.{name}" if path else name)
            for name, value in data.items()
        }
    )


def _field(cls: type[Any], name: str, hint: Any, value: Any, path: str) -> Any:
    """The value of a dataclass's field; one that is SECRET is not quoted where it is of another type."""
    try:
        return _coerce(hint, value, path)
    except ConfigError:
        if not next(f.metadata.get("secret") for f in dataclasses.fields(cls) if f.name == name):
            raise
    raise ConfigError(
        f"{path} is of type {type(value).__name__} (not shown, as it may be secret); wanted {_type_name(hint)}"
    )


def _type_name(hint: Any) -> str:
    if hint is str:
        return "text"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Resolved once a class: lines of results are read by the million."""
    return typing.get_type_hints(cls)


def _coerce(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotation `hint` says, or ConfigError."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return (
            value
            if isinstance(value, typing.cast("type[Any]", hint))
            else from_plain(typing.cast("type[Any]", hint), value, path)
        )
    if origin in (types.UnionType, typing.Union):  # the latter of a Literal and None
        if value is None or (dataclasses.is_dataclass(value) and type(value) in typing.get_args(hint)):
            return value
        return _coerce(next(a for a in typing.get_args(hint) if a is not type(None)), value, path)
    if origin is Literal:
        check(any(value == a for a in typing.get_args(hint)), path, value, f"one of {typing.get_args(hint)}")
        return value
    if origin is dict:
        check(isinstance(value, dict) and all(isinstance(key, str) for key in value), path, value, "a mapping of names")
        kind = typing.get_args(hint)[1]
        return {key: _coerce(kind, one, f"{path}.{key}") for key, one in value.items()}
    if hint is Any:
        return value
    if origin is tuple:
        check(isinstance(value, (list, tuple)), path, value, "a list")
        kinds = typing.get_args(hint)
        if kinds[-1] is Ellipsis:
            return tuple(_coerce(kinds[0], v, f"{path}[{i}]") for i, v in enumerate(value))
        check(len(value) == len(kinds), path, value, f"a list of {len(kinds)}")
        return tuple(_coerce(kind, v, f"{path}[{i}]") for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
    if hint is float and is_finite(value):
        return float(value)
    if hint is int and (is_finite(value) or _is_whole(value)) and value == int(value):
        return int(value)
    wanted = {int: "a whole number", float: "a finite number"}.get(hint, f"a {hint.__name__}")
    check(isinstance(value, hint) and hint not in (int, float), path, value, wanted)
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
