"""What pydantic found wrong with a configuration, said in one line: the key as the user wrote it, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.designs import find as find_design
from workers.errors import near

LONGEST = 80
"""Characters of a wrong value that are shown."""
_WORDS = ((r"valid (dictionary|list|tuple)( or .*)?$", r"\1"), ("dictionary", "mapping"), ("tuple", "list"))
"""Python's words for what YAML calls otherwise."""
_BY_NAME = (["estimators"], ["designs"])
"""Sections whose entries have the keys of a class that each of them names."""


def one_line(error: ValidationError, raw: Mapping[str, Any], section: type[BaseModel]) -> str:
    """Return the first problem `section` found in `raw`: its key, what was expected and found, near names of an unknown one."""
    problems = error.errors(include_url=False)
    first, place = problems[0], _place(problems[0], raw)
    alike = [problem for problem in problems if _place(problem, raw) == place]
    others = len({tuple(_place(problem, raw)) for problem in problems}) - 1
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        *above, last = (str(part) for part in first["loc"])
        known = _options_at(above, raw) if above[:1] in _BY_NAME else _keys_at(above, section)
        return f"unknown key {'.'.join(place)!r}: {near(last, known)}{more}"
    return f"{_say(alike, '.'.join(place), first)}{more}"


def _say(alike: Sequence[Any], key: str, first: Any) -> str:
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return _say_kind(key, first)
    messages = list(dict.fromkeys(_message(problem) for problem in alike))
    found = "" if first["type"] == "value_error" else f" (found {_short(first['input'])})"
    return f"{key + ': ' if key else ''}{', or '.join(messages)}{found}"


def _say_kind(key: str, problem: Any) -> str:
    """Complain of the `kind` by which the keys of a section are told."""
    known = re.findall(r"'([^']+)'", problem["ctx"].get("expected_tags", ""))
    if problem["type"] == "union_tag_invalid":
        tag = problem["ctx"]["tag"]
        return f"{key}.kind: unknown kind {tag!r}: {near(tag, known)}"
    return f"{key}.kind: is missing (found {_short(problem['input'])})"


def _message(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return text
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text, flags=re.IGNORECASE)
    return text[0].lower() + text[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _place(problem: Any, raw: Mapping[str, Any]) -> list[str]:
    """Return where in `raw` the problem is: pydantic's location without the steps that stand for its own types."""
    location = list(problem["loc"])
    found: list[str] = []
    node: Any = raw
    for part in location:
        below = dict(enumerate(node)) if isinstance(node, list | tuple) else node
        if isinstance(below, Mapping) and part in below:
            node = below[part]
            found.append(str(part))
        elif problem["type"] == "missing" and part == location[-1]:
            found.append(str(part))
    return found


def _options_at(location: Sequence[str], raw: Mapping[str, Any]) -> list[str]:
    """Return the keys that a design's or an estimator's section may have at a place; only that one's class is asked."""
    from estimators.registry import load  # only for this complaint: every other one is made without the estimators

    section, label, *inside = location
    if section == "designs":
        return _keys_at(inside, find_design(raw["designs"][label]["kind"]))
    kind = (raw["estimators"][label] or {}).get("estimator", label)
    return _keys_at(inside, load(kind, Path(raw.get("folder", ".")))) + (
        [] if inside else ["estimator", "measure", "tune", "tune_on"]
    )


def _keys_at(location: Sequence[str], section: type[BaseModel]) -> list[str]:
    """Return the keys that a section may have at a place below it, of all alternatives there."""
    below: list[Any] = [section]
    for part in location:
        below = [step for one in below for step in _steps(one, part)]
    return sorted({key for one in below for key in getattr(one, "model_fields", ())})


def _steps(annotation: Any, part: str) -> list[Any]:
    """Return what the value of a key may be, where `annotation` says what holds the key."""
    if get_origin(annotation) in (dict, Mapping):
        return _alternatives(get_args(annotation)[1])
    if part in getattr(annotation, "model_fields", {}):
        return _alternatives(annotation.model_fields[part].annotation)
    return []


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types that an annotation stands for: those of a union one by one, without what only describes them."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [found for one in get_args(annotation) for found in _alternatives(one)]
    return [annotation]
