"""From what a person asks for, on the command line or in Python, to the sweep that is meant."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.config.loading import load, parsed, validate_with
from workers.errors import ConfigError

if TYPE_CHECKING:  # what cannot be loaded is refused before anything of it is imported
    from orchestrator.config.schema import Config
    from orchestrator.sweeps.sweep import Sweep

Configuration: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | Config"
"""A YAML file, the name of a shipped configuration, the sections as plain data, or a `Config`."""
Overrides = Mapping[str, Any] | Sequence[str]
"""Dotted keys and their values, or `key.sub=value` as on the command line."""


def requested(
    config: Configuration, out: Path | None = None, overrides: Overrides = (), sample: float | None = None
) -> Sweep:
    """Return the sweep of a configuration with overrides, in `out` (by default runs/<name>); of a `sample` of its runs, if asked.

    Raises ConfigError, one line, for any mistake.
    """
    configured = _configured(config, _pairs(overrides))
    from orchestrator.sweeps.sweep import Sweep

    if sample is not None:
        if not 0 < sample <= 1:
            raise ConfigError(f"sample {sample:g}: expected a fraction above 0 and at most 1")
        configured = configured.sampled(sample)
        out = out or Path("runs") / f"{configured.name}-sample-{sample:g}"
    return Sweep.of(configured, out)


def _configured(config: Configuration, overrides: Sequence[tuple[str, Any]]) -> Config:
    if isinstance(config, str | PathLike):
        return load(fspath(config), overrides)
    if isinstance(config, Mapping):
        return _validated(config, overrides)
    from orchestrator.config.schema import Config

    if not isinstance(config, Config):
        raise ConfigError(f"configuration: expected a file, a name, a mapping or a Config, found {config!r}")
    return config if not overrides else _validated(config.resolved(), overrides)


def _validated(sections: Mapping[str, Any], overrides: Sequence[tuple[str, Any]]) -> Config:
    """Return a configuration given as plain data; file names in it are relative to where the user is."""
    raw = {"name": "sweep", "folder": ".", **_plain("configuration", sections)}
    return validate_with(raw, overrides, Path(), "configuration")


def _pairs(overrides: Overrides) -> list[tuple[str, Any]]:
    """Return overrides as dotted keys and plain values."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: expected a list such as ['seed=1'] or a mapping, found {overrides!r}")
    if isinstance(overrides, Mapping):
        return [(key, _plain(f"override {key!r}", value)) for key, value in overrides.items()]
    return [parsed(override) for override in overrides]


def _plain(where: str, value: Any) -> Any:
    """Return a value as YAML would have given it: NumPy's numbers and arrays, paths and tuples are what they stand for.

    Raises ConfigError for anything else that no YAML file could say.
    """
    if isinstance(value, Mapping):
        return {key: _plain(f"{where}: {key}", inside) for key, inside in value.items()}
    numpy = sys.modules.get("numpy")  # whoever has a value of it has imported it
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return value.tolist()
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, list | tuple | range):
        return [_plain(where, inside) for inside in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise ConfigError(f"{where}: expected numbers, texts, lists and mappings, found {type(value).__name__}")
