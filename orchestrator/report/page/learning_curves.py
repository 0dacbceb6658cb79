"""What more runs would bring: the learning curve as a figure, and its continuation in units of the LDS."""

from __future__ import annotations

import math

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from orchestrator.report import text
from orchestrator.report.data import Family, LearningLine
from orchestrator.report.page import svg
from orchestrator.report.page.figures import WIDTH, blank
from orchestrator.report.page.shown_score import ShownScore


def figure(curve: LearningLine, family: Family, name: str) -> Markup:
    """Draw the measured correlations with their intervals, and the continued curve, dashed, in its band."""
    colour = svg.FAMILY[family]
    with svg.styled():
        drawing, axes = blank(WIDTH, 280)
        value, low, high = curve.measured
        axes.vlines(curve.runs, low, high, color=colour, lw=3, alpha=0.3)
        axes.plot(curve.runs, value, "o-", color=colour, lw=1.5, ms=6, zorder=3)
        value, low, high = curve.expected
        axes.plot(curve.ahead, value, color=colour, lw=1.5, ls=(0, (4, 3)))
        axes.fill_between(curve.ahead, low, high, color=colour, alpha=0.15, lw=0)
        for x, y in ((curve.runs[-1], curve.measured[0, -1]), (curve.ahead[-1], value[-1])):
            axes.annotate(text.decimal(y, 2), (x, y), (0, 8), textcoords="offset points", ha="center", fontsize=10)
        _scales(axes, curve)
        description = "; ".join(
            f"{r:,} runs {text.decimal(v, 2)}" for r, v in zip(curve.runs, curve.measured[0], strict=True)
        )
        return svg.inline(drawing, name, f"Learning curve of {curve.estimator}: {description}; {curve.sentence}")


def _scales(axes: Axes, curve: LearningLine) -> None:
    """Let both axes begin at 0, so that a small gain looks small."""
    bottom = min(0.0, float(curve.measured.min()), float(curve.expected.min()))
    top = max(float(curve.measured.max()), float(curve.expected.max()))
    axes.set_ylim(1.05 * bottom, top + 0.14 * (top - bottom))
    axes.set_xlim(0, 1.06 * curve.ahead[-1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", color=svg.LINE, lw=0.7, alpha=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("fitting runs")
    axes.set_ylabel("held-out correlation")


def sentence(curve: LearningLine, lds: ShownScore | None) -> str:
    """Return what more runs would bring: to the LDS where there is one above 0, else to the curve's own correlation."""
    if lds is None or not (lds.value > 0 and math.isfinite(lds.low) and math.isfinite(lds.high)):
        return curve.sentence[0].upper() + curve.sentence[1:]
    then = grown(lds, curve)
    return (
        f"Another {curve.more:,} runs would bring the LDS from {text.decimal(lds.value, 2)} to about "
        f"{text.decimal(then.value, 2)} ({text.decimal(then.low, 2)} to {text.decimal(then.high, 2)})"
    )


def grown(lds: ShownScore, curve: LearningLine) -> ShownScore:
    """Return the LDS after the curve's `more` runs: times its gain, the relative errors of both added in squares."""
    gain, low, high = curve.gain
    value = lds.value * gain
    below = math.hypot(1 - lds.low / lds.value, 1 - low / gain)
    above = math.hypot(lds.high / lds.value - 1, high / gain - 1)
    return ShownScore(min(1.0, value), value * (1 - below), min(1.0, value * (1 + above)), lds.ceiling)
