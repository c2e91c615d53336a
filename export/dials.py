"""Dials by name on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import yaml

from rdn_engine.config import Dials
from rdn_engine.errors import ConfigError


def turned(dials: Dials, settings: Sequence[str]) -> Dials:
    """`dials` with settings such as "window=4". Raises ConfigError for an unknown name or a value out of range."""
    given = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        known = [f.name for f in fields(Dials)]
        if not equals or name not in known:
            raise ConfigError(f"--dial is {setting!r}; wanted NAME=VALUE with a name of {known}")
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--dial is {setting!r}; wanted a number or a word after the =") from None
    return replace(dials, **given)
