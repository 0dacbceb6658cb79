"""One thing that a configuration can name, and its options, in words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One key that a configuration may set."""

    name: str
    accepts: str
    """What it takes, such as `integer of at least 1, or null`."""
    default: str
    """What it is where it is not set, as YAML; `required` where it must be."""
    about: str
    """What it means; empty where its name says it."""


@dataclass(frozen=True)
class Entry:
    """An estimator, a design or a task."""

    name: str
    """As a configuration names it."""
    summary: str
    """One sentence."""
    text: tuple[str, ...]
    """What else there is to know: paragraphs of Markdown."""
    facts: tuple[tuple[str, str], ...]
    """What it needs, gives, or can do: a word each, and its answer."""
    options: tuple[Option, ...]


def first_paragraph(docstring: str | None) -> str:
    """Return what a docstring begins with; empty where there is none."""
    return next(_paragraphs(docstring), "")


def paragraphs(thing: Any) -> Iterator[str]:
    """Yield the paragraphs of a docstring, a list as one of them, up to its example, which is for those who write Python."""
    return _paragraphs(inspect.getdoc(thing) or thing.__name__)


def _paragraphs(docstring: str | None) -> Iterator[str]:
    text = (docstring or "").partition("\n\n>>> ")[0]
    for part in text.split("\n\n"):
        lines = [line.strip() for line in part.splitlines() if line.strip()]
        if lines:
            yield _joined(lines)


def _joined(lines: list[str]) -> str:
    """Return lines as one, but for the items of a list."""
    items: list[str] = []
    for line in lines:
        if not items or line.startswith("- "):
            items.append(line)
        else:
            items[-1] += f" {line}"
    return "\n".join(items)
