"""The figure of how an LDS goes with an option of an estimator, as a file of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from orchestrator.report import text
from orchestrator.report.page import figures, svg
from orchestrator.report.sensitivity_table import Looked

COLOURS = {"ink": "#1f2328", "muted": "#59636e", "line": "#d1d9e0", "ceiling": "#9a6700", "gradients": "#0969da"}
"""Of a file that no style sheet colours."""


def figure(rows: Sequence[Looked], estimator: str, option: str, tuned: float | None) -> str:
    """Return the SVG: the LDS with its 95% interval over the numbers, the default, the tuned choice, the noise ceiling.

    A default that is no number is a line across; values with which nothing could be computed are not drawn.
    """
    known = [row for row in rows if math.isfinite(row.lds)]
    at = [row for row in known if math.isfinite(row.number)]
    with svg.styled():
        drawn, axes = figures.blank(520, 320)
        numbers, values = (np.array([getattr(row, name) for row in at]) for name in ("number", "lds"))
        colour = svg.FAMILY["gradients"]
        if len(numbers) and numbers.min() > 0:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
        axes.fill_between(numbers, [row.low for row in at], [row.high for row in at], color=colour, alpha=0.15, lw=0)
        axes.plot(numbers, values, "o-", color=colour, ms=4, lw=1.5)
        axes.axhline(0, color=svg.LINE, lw=1, zorder=0)
        for row in known:
            if row.default:
                _mark_default(axes, row)
        if tuned is not None:
            axes.axvline(tuned, color=svg.INK, lw=1.2, ls=(0, (1, 2)))
            axes.annotate("tuned", (tuned, 1), (3, -10), xycoords=("data", "axes fraction"), textcoords="offset points")
        ceilings = [row for row in known if row.ceiling_low > 0]
        if ceilings:
            axes.axhspan(ceilings[0].ceiling_low, ceilings[0].ceiling_high, color=svg.CEILING, alpha=0.12, lw=0)
            axes.axhline(ceilings[0].ceiling, color=svg.CEILING, lw=1.5, ls=(0, (4, 3)))
            at_its_end, across = (1, ceilings[0].ceiling), ("axes fraction", "data")
            axes.annotate("ceiling", at_its_end, (-4, 4), xycoords=across, textcoords="offset points", ha="right")
        axes.set_xlabel(f"{option} of {estimator}")
        axes.set_ylabel(f"LDS ({rows[0].measure}, {rows[0].design}), 95% interval" if rows else "LDS")
        told = "; ".join(f"{row.shown}: {text.decimal(row.lds)}" for row in known)
        made = str(svg.inline(drawn, "sensitivity", f"LDS of {estimator} over {option}: {told}"))
    for name, colour in COLOURS.items():
        made = made.replace(f"var(--{name})", colour)
    return made.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" ', 1)


def _mark_default(axes: Axes, row: Looked) -> None:
    """Draw the default: a line down where it is a number, else one across."""
    if math.isfinite(row.number):
        axes.axvline(row.number, color=svg.MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.annotate(
            "default", (row.number, 0), (3, 4), xycoords=("data", "axes fraction"), textcoords="offset points"
        )
        return
    axes.axhline(row.lds, color=svg.MUTED, lw=1.2, ls=(0, (4, 3)))
    across = ("axes fraction", "data")
    axes.annotate(f"default ({row.shown})", (0, row.lds), (4, 4), xycoords=across, textcoords="offset points")
