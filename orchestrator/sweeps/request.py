"""From what a person asks for, on the command line or in Python, to the sweep that is meant."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestrator.config.loading import apply_override, load, validate
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
    configured = _configured(config, _lines(overrides))
    from orchestrator.sweeps.sweep import Sweep

    if sample is not None:
        if not 0 < sample <= 1:
            raise ConfigError(f"--sample {sample:g}: expected a fraction above 0 and at most 1")
        configured = configured.sampled(sample)
        out = out or Path("runs") / f"{configured.name}-sample-{sample:g}"
    return Sweep.of(configured, out)


def _configured(config: Configuration, overrides: Sequence[str]) -> Config:
    if isinstance(config, str | PathLike):
        return load(fspath(config), overrides)
    if isinstance(config, Mapping):
        return _validated(config, overrides)
    return config if not overrides else _validated(config.resolved(), overrides)


def _validated(sections: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """Return a configuration given as plain data; file names in it are relative to where the user is."""
    raw = {"name": "sweep", **copy.deepcopy(dict(sections))}
    for override in overrides:
        apply_override(raw, override)
    raw["folder"] = str(Path(raw.get("folder", ".")).expanduser().resolve())
    return validate(raw, "configuration")


def _lines(overrides: Overrides) -> list[str]:
    """Return overrides as the command line has them; a value is written as JSON, which YAML reads back."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: expected a list such as ['seed=1'] or a mapping, found {overrides!r}")
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)
