"""From a YAML file, or the name of a shipped one, to a `Config`; every mistake is one line that names the file and the key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.config import yaml_format
from orchestrator.config.shipped import shipped
from workers.errors import ConfigError, near

if TYPE_CHECKING:  # a file that is not there, or is not YAML, is refused before the sections are imported
    from orchestrator.config.schema import Config


def locate(name: str) -> tuple[Path, Path]:
    """Return the file that `name` means and the folder that its file names are relative to.

    A path is taken as it is; otherwise a shipped configuration of that name, whose files are looked for where the user is.
    """
    path = Path(name)
    if path.is_file():
        return path, path.resolve().parent
    if name in shipped():
        return shipped()[name], Path.cwd()
    raise ConfigError(
        f"no configuration file {name!r}, and none that ships has that name: {near(name, list(shipped()))}"
    )


def load(name: str, overrides: Sequence[tuple[str, Any]] = ()) -> Config:
    """Read a configuration, with other values for some dotted keys. Raises ConfigError, one line, for any mistake."""
    path, folder = locate(name)
    return validate_with({"name": path.stem, "folder": ".", **read(path)}, overrides, folder, str(path))


def validate_with(sections: dict[str, Any], overrides: Sequence[tuple[str, Any]], folder: Path, origin: str) -> Config:
    """Turn plain data into a Config, with other values for some dotted keys; `folder` is what its own is relative to.

    Raises ConfigError with one line that names the key, and the override whose mistake it is, else `origin`.
    """
    raw = deepcopy(sections)
    for override in overrides:
        set_key(raw, *override)
    for one in (raw, sections):
        if isinstance(one["folder"], str):
            one["folder"] = str((folder / Path(one["folder"]).expanduser()).resolve())
    try:
        return _validated(raw)
    except ConfigError as error:
        blamed = _to_blame(str(error), sections, [key for key, _ in overrides])
        raise ConfigError(f"{blamed or origin}: {error}") from error


def _to_blame(line: str, without: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return the override, or overrides, to which a complaint is due; empty where it is not: it is the same without them.

    `without` is the configuration without any.
    """
    found = re.match(r"(?:unknown key ')?([^\s':]+)", line)
    key = found[1] if found else ""
    named = [one for one in overrides if f"{key}.".startswith(f"{one}.")]
    if named:
        return f"override {named[-1]!r}"
    try:
        if overrides:
            _validated(without)
    except ConfigError:
        return ""
    word = "overrides" if len(overrides) > 1 else "override"
    return f"{word} {', '.join(map(repr, overrides))}" if overrides else ""


def validate(raw: Mapping[str, Any], origin: str, *, options: bool = True) -> Config:
    """Turn plain data into a Config. Raises ConfigError with one line that names `origin` and the key.

    Without `options` those of the estimators are not looked at before they are asked for, and designs may be of a kind that is
    not there: so a sweep is opened that is only to be read, quickly and wherever what it names is not installed.
    """
    try:
        return _validated(raw, options=options)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def _validated(raw: Mapping[str, Any], *, options: bool = True) -> Config:
    from pydantic import ValidationError

    from orchestrator.config.estimator_section import UNCHECKED
    from orchestrator.config.schema import Config
    from orchestrator.config.validation_errors import one_line
    from orchestrator.designs.registry import ONLY_READ

    try:
        # All but the estimators' options first: a mistake there is said without waiting for the estimators to be imported.
        config = Config.model_validate(raw, context={UNCHECKED: True, ONLY_READ: not options})
        return Config.model_validate(raw) if options else config
    except ValidationError as error:
        raise ConfigError(one_line(error, raw, Config)) from error


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def read(path: Path, text_of: Callable[[Path], str] = _text_of) -> dict[str, Any]:
    """Return the sections of a YAML file, unchecked; `text_of` reads it. Raises ConfigError when it is not a mapping in YAML."""
    try:
        raw = yaml_format.load(text_of(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(raw).__name__}")
    return raw


def parsed(override: str) -> tuple[str, Any]:
    """Return the dotted key of `key.sub=value`, and the value read as YAML. Raises ConfigError."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected key.sub=value")
    try:
        return key, yaml_format.load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not YAML: {' '.join(str(error).split())}") from error


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key in place, making the sections above it. Raises ConfigError where one of these is no section."""
    *parents, last = key.split(".")
    place: Any = raw
    for part in parents:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"override {key!r}: {part!r} is not a section")
    place[last] = value
