"""Where the command line writes, and how text that somebody else wrote is shown there: as text, whatever it holds.

A terminal obeys control characters, and rich its markup: what a run, a file or a stranger's sweep says is passed through `shown`.
The consoles let no control character out that was forgotten.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, but for tab and line feed; and those that turn the direction of writing or break a line."""
_BREAKS = re.compile("[\t\n]")


def shown(text: object) -> str:
    """Return text to print in one line, as it is: control characters and line breaks written out, no markup in it.

    >>> from orchestrator.cli.console import shown
    >>> print(shown("one\\nline [red]with \\x1b[2J no power"))
    one\\nline \\[red]with \\x1b[2J no power
    """
    return escape(_BREAKS.sub(_written_out, _COMMANDS.sub(_written_out, str(text))))


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class PlainConsole(Console):
    """A console whose terminal gets no control character but rich's own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            if segment.control or not _COMMANDS.search(segment.text):
                yield segment
            else:
                yield Segment(_COMMANDS.sub(_written_out, segment.text), segment.style)


def print_json(value: Any) -> None:
    """Print one JSON document. NaN is none of its numbers: `jsonable` makes null of it before."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


WIDTH = None if sys.stdout.isatty() else 120
out = PlainConsole(width=WIDTH)
err = PlainConsole(stderr=True)
