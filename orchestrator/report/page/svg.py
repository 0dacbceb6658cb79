"""From a matplotlib figure to SVG inside the page: no metadata, unique ids, the colours of the page's style sheet.

Text stays text, the style sheet sets its font and the figure's width. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

# Colours that nobody draws with, each replaced by a variable of the style sheet, so that figures follow light and dark.
INK, MUTED, LINE, CEILING = "#000001", "#000002", "#000003", "#000004"
FAMILY = {"retraining": "#000005", "gradients": "#000006", "other": "#000007"}
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", CEILING: "ceiling"} | {c: name for name, c in FAMILY.items()}

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
}


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are made: our style over matplotlib's defaults, not over the user's."""
    return style.context(["default", _STYLE])


def inline(figure: Figure, name: str, description: str) -> Markup:
    """Return the figure as an `<svg role="img">` element.

    `name` makes its ids unique on the page, `description` is read by screen readers.
    """
    buffer = io.StringIO()
    with style.context(["default", _STYLE, {"svg.hashsalt": name}]):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Markup(_embed(buffer.getvalue(), name, description))


def _embed(text: str, name: str, description: str) -> str:
    body = text[text.index("<svg") :]
    head, body = body.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None, "matplotlib writes a viewBox"
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return f'<svg viewBox="{box.group(1)}" role="img" aria-label="{escape(description)}">{body.strip()}'
