"""The figure of effects of whole groups, foretold against measured."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from orchestrator.report import text
from orchestrator.report.data import Foretold
from orchestrator.report.page import figures, svg


def figure(one: Foretold, name: str) -> Markup:
    """Draw the measured effect of including each group over the foretold one, a point with its name for each."""
    with svg.styled():
        drawn, axes = figures.blank(320, 250)
        axes.plot(one.predicted, one.actual, "o", color=svg.FAMILY["gradients"], ms=5, mew=0)
        for group, x, y in zip(one.groups, one.predicted, one.actual, strict=True):
            axes.annotate(group, (x, y), (4, 3), textcoords="offset points", fontsize=9, color=svg.MUTED)
        axes.margins(0.12)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(f"foretold by {one.estimator}")
        axes.set_ylabel(f"effect on the {one.measure}, retrained")
        told = f"{one.estimator}: effects of including {len(one.groups)} groups on the {one.measure}, foretold and measured"
        return svg.inline(drawn, name, f"{told}, correlation {text.decimal(one.correlation, 2)}")
