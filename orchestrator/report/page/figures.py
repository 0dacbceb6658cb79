"""The figures: pure functions from scores and arrays to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator
from numpy.typing import NDArray

from orchestrator.report import text
from orchestrator.report.data import RemovalLine, StopCurve
from orchestrator.report.page import svg
from orchestrator.report.page.leaderboard import Entry
from workers.wording import duration

WIDTH = 430
"""Width of a figure that takes half the page, in its own pixels; the page scales it."""
_CLOCK = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 360000.0)
"""Ticks of a logarithmic axis of seconds, at times that have a name."""


def lds_intervals(board: Sequence[Entry]) -> Markup:
    """Draw every estimator's LDS with its 95% interval, and the noise ceiling as a line."""
    with svg.styled():
        figure, axes = blank(WIDTH, 54 + 28 * len(board))
        rows = np.arange(len(board))[::-1]
        for row, entry in zip(rows, board, strict=True):
            colour = svg.FAMILY[entry.family]
            axes.plot(
                [entry.lds.low, entry.lds.high], [row, row], color=colour, lw=3, alpha=0.35, solid_capstyle="butt"
            )
            axes.plot(entry.lds.value, row, "o", color=colour, ms=6, zorder=3)
            axes.annotate(
                text.decimal(entry.lds.value, 2),
                (entry.lds.value, row),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=10,
            )
        axes.set_yticks(rows, [entry.estimator for entry in board], color=svg.INK)
        axes.set_ylim(-0.6, len(board) - 0.15)
        axes.axvline(0, color=svg.LINE, lw=1, zorder=0)
        _ceiling_line(axes, _ceiling([entry.lds.drawn_ceiling for entry in board]))
        _quiet(axes)
        axes.set_xlabel("LDS, 95% interval")
        description = "; ".join(
            f"{e.estimator} {text.decimal(e.lds.value)} ({text.decimal(e.lds.low)} to {text.decimal(e.lds.high)})"
            for e in board
        )
        return svg.inline(figure, "lds", f"LDS of each estimator with its 95% interval: {description}")


def lds_against(
    board: Sequence[Entry], cost: Callable[[Entry], float], axis: str, name: str, seconds: bool = False
) -> Markup:
    """Draw LDS over a cost on a logarithmic axis; entries without a positive cost are the caller's to leave out.

    Entries that differ in the number of reference models alone are joined by a line.
    """
    with svg.styled():
        figure, axes = blank(WIDTH, 280)
        costs = np.array([cost(entry) for entry in board])
        values = np.array([entry.lds.value for entry in board])
        axes.set_xscale("log")
        axes.set_xlim(costs.min() / 3.3, costs.max() * 3.3)  # a decade or more: at least one tick is inside
        axes.set_ylim(*_around(board))
        for entry, x in zip(board, costs, strict=True):
            colour = svg.FAMILY[entry.family]
            axes.plot([x, x], [entry.lds.low, entry.lds.high], color=colour, lw=3, alpha=0.3, solid_capstyle="butt")
            axes.plot(x, entry.lds.value, "o", color=colour, ms=6, zorder=3)
        for places in curves(board, cost):
            colour = svg.FAMILY[board[places[0]].family]
            axes.plot(costs[places], values[places], color=colour, lw=1.2, alpha=0.7, zorder=2)
        axes.axhline(0, color=svg.LINE, lw=1, zorder=0)
        _ceiling_line(axes, _ceiling([entry.lds.drawn_ceiling for entry in board]), horizontal=True)
        axes.xaxis.set_major_locator(FixedLocator(_CLOCK) if seconds else LogLocator(numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: text.tick(v) if seconds else f"{v:,.10g}"))
        axes.xaxis.minorticks_off()
        axes.grid(axis="y", color=svg.LINE, lw=0.7, alpha=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(axis)
        axes.set_ylabel("LDS")
        _label_points(axes, costs, values, [entry.estimator for entry in board])
        description = "; ".join(
            f"{e.estimator} {duration(x) if seconds else f'{x:,.0f}'}, LDS {text.decimal(e.lds.value)}"
            for e, x in zip(board, costs, strict=True)
        )
        return svg.inline(figure, name, f"LDS against {axis}: {description}")


def curves(board: Sequence[Entry], cost: Callable[[Entry], float]) -> list[list[int]]:
    """Return the entries of each curve by their places on the board, by rising cost; those of one design together."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, entry in enumerate(board):
        if entry.curve:
            found.setdefault((entry.curve, entry.design), []).append(place)
    return [sorted(places, key=lambda place: cost(board[place])) for places in found.values() if len(places) > 1]


def predicted_actual(
    predicted: NDArray[np.floating], actual: NDArray[np.floating], entry: Entry, measure: str, lds: float, name: str
) -> Markup:
    """Draw one query's predicted against actual outputs, (s,) each; y = x where the two share a scale."""
    with svg.styled():
        figure, axes = blank(320, 250)
        axes.plot(predicted, actual, "o", color=svg.FAMILY[entry.family], ms=5, alpha=0.5, mew=0)
        if _share_a_scale(predicted, actual):
            limits = (axes.get_xlim(), axes.get_ylim())
            middle = float(np.mean(actual))
            axes.axline((middle, middle), slope=1, color=svg.MUTED, lw=1, ls=(0, (4, 4)))
            axes.set(xlim=limits[0], ylim=limits[1])
        axes.set_xlabel(f"predicted by {entry.estimator}")
        axes.set_ylabel(f"actual {measure}")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        description = f"{entry.estimator}: predicted against actual {measure} over {len(actual)} held-out subsets"
        return svg.inline(figure, name, f"{description}, rank correlation {text.decimal(lds, 2)}")


def per_query(board: Sequence[Entry], lds: Mapping[str, NDArray[np.floating]], ceiling: NDArray[np.floating]) -> Markup:
    """Draw the distribution over queries of each estimator's LDS as a small histogram, the ceiling's on top."""
    finite = ceiling[np.isfinite(ceiling)]
    rows = [("ceiling", svg.CEILING, finite)] if len(finite) else []
    rows += [(e.estimator, svg.FAMILY[e.family], lds[e.estimator][np.isfinite(lds[e.estimator])]) for e in board]
    everything = np.concatenate([values for _, _, values in rows])
    low = min(0.0, float(everything.min(initial=0.0)))
    bins = np.linspace(low, max(1.0, float(everything.max(initial=1.0))), 49)
    with svg.styled():
        figure, axes = blank(WIDTH, 54 + 28 * len(rows))
        for base, (_, colour, values) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
            if not len(values):
                continue
            counts, _edges = np.histogram(values, bins)
            axes.stairs(
                base + 0.8 * counts / counts.max(), bins, baseline=base, fill=True, color=colour, alpha=0.45, lw=0
            )
            middle = float(np.median(values))
            axes.plot([middle, middle], [base, base + 0.8], color=colour, lw=2)
        axes.hlines(range(len(rows)), bins[0], bins[-1], color=svg.LINE, lw=0.7, zorder=0)
        axes.set_yticks(np.arange(len(rows))[::-1] + 0.3, [label for label, _, _ in rows], color=svg.INK)
        axes.set_ylim(-0.15, len(rows))
        axes.axvline(0, color=svg.LINE, lw=1, zorder=0)
        _quiet(axes)
        axes.set_xlabel("LDS of single queries; the line is the median")
        description = "; ".join(
            f"{label} median {text.decimal(float(np.median(v)), 2)}" for label, _, v in rows if len(v)
        )
        return svg.inline(figure, "per-query", f"Distribution over queries of the LDS: {description}")


def removal_curves(lines: Sequence[RemovalLine], title: str, name: str) -> Markup:
    """Draw the measure against the fraction removed, one line an estimator; a band is one standard error over seeds."""
    with svg.styled():
        figure, axes = blank(WIDTH, 280)
        for line, style in zip(lines, _styles(lines), strict=True):
            percent = 100 * line.removed
            axes.plot(percent, line.utility, lw=2, label=line.estimator, **style)
            if np.isfinite(line.standard_error).all():
                band = (line.utility - line.standard_error, line.utility + line.standard_error)
                axes.fill_between(percent, *band, color=style["color"], alpha=0.15, lw=0)
        axes.grid(axis="y", color=svg.LINE, lw=0.7, alpha=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel("examples removed, %")
        axes.set_ylabel(f"mean {lines[0].measure}")
        axes.legend(frameon=False, fontsize=10)
        description = "; ".join(
            f"{line.estimator} from {text.decimal(float(line.utility[0]))} to {text.decimal(float(line.utility[-1]))}"
            for line in lines
        )
        return svg.inline(figure, name, f"{title}: {description}")


def _styles(lines: Sequence[RemovalLine]) -> list[dict[str, Any]]:
    """Return colour, dash and marker of each line; the random order is grey."""
    palette = [svg.FAMILY["retraining"], svg.FAMILY["gradients"], svg.CEILING, svg.INK]
    dashes = ["-", (0, (5, 2)), (0, (1, 1.5))]
    styles: list[dict[str, Any]] = []
    for line in lines:
        k = len(styles) - sum(style["color"] == svg.MUTED for style in styles)
        colour = svg.MUTED if line.order == "any" else palette[k % len(palette)]
        styles.append({"color": colour, "ls": dashes[k // len(palette) % len(dashes)], "marker": "o", "ms": 3.5})
    return styles


def stop_curve(curve: StopCurve, name: str) -> Markup:
    """Draw the number that a stopping criterion looks at, over the finished runs, and where it is to arrive."""
    with svg.styled():
        figure, axes = blank(WIDTH, 220)
        axes.plot(curve.runs, curve.values, "o-", color=svg.FAMILY["retraining"], lw=1.5, ms=4)
        axes.axhline(curve.threshold, color=svg.CEILING, lw=1.5, ls=(0, (4, 3)), zorder=1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("finished runs")
        axes.set_ylabel(curve.comparison.split(" ")[0].replace("_", " "))
        known = np.flatnonzero(np.isfinite(curve.values))
        last = f"{curve.values[known[-1]]:.3g} after {curve.runs[known[-1]]:,} runs" if len(known) else "not known yet"
        return svg.inline(figure, name, f"Stopping of {curve.design} at {curve.comparison}: {last}")


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of so many pixels, and its axes; to be called within `svg.styled()`."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    return figure, axes


def _around(board: Sequence[Entry]) -> tuple[float, float]:
    """Return limits with 0, every value, interval and ceiling inside, and some air."""
    numbers = [number for e in board for number in (e.lds.value, e.lds.low, e.lds.high, e.lds.drawn_ceiling)]
    finite = [0.0, *(number for number in numbers if math.isfinite(number))]
    span = (max(finite) - min(finite)) or 1.0
    return min(finite) - 0.06 * span, max(finite) + 0.1 * span


def _quiet(axes: Axes) -> None:
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _ceiling(values: Sequence[float]) -> float:
    """Return the highest finite ceiling, NaN if there is none (estimators scored on one design share theirs)."""
    return max((value for value in values if math.isfinite(value)), default=math.nan)


def _ceiling_line(axes: Axes, ceiling: float, horizontal: bool = False) -> None:
    if not math.isfinite(ceiling):
        return
    label = f"ceiling {text.decimal(ceiling, 2)}"
    if horizontal:
        axes.axhline(ceiling, color=svg.CEILING, lw=1.5, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            label,
            (0, ceiling),
            (4, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=svg.CEILING,
            fontsize=10,
        )
    else:
        axes.axvline(ceiling, color=svg.CEILING, lw=1.5, ls=(0, (4, 3)), zorder=1)
        axes.annotate(
            label,
            (ceiling, 0),
            (-5, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            color=svg.CEILING,
            fontsize=10,
        )


def _share_a_scale(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> bool:
    """Whether the ranges overlap by half of the wider one: then y = x says something."""
    low, high = max(predicted.min(), actual.min()), min(predicted.max(), actual.max())
    return bool(high - low >= 0.5 * max(np.ptp(predicted), np.ptp(actual)) > 0)


def _label_points(axes: Axes, x: NDArray[np.floating], y: NDArray[np.floating], names: Sequence[str]) -> None:
    """Write each name beside its point, at the first of a few places where it meets no point and no other name."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # the layout is settled only by drawing
    spots = axes.transData.transform(np.column_stack([x, y]))
    frame = axes.get_window_extent()
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in spots]
    for (px, py), cost, value, name in zip(spots, x, y, names, strict=True):
        wide = 6.4 * len(name)
        places = [(side, dy) for dy in (-4.0, 9.0, -17.0) for side in ("left", "right")]
        boxes = {}
        for side, dy in places:
            left = px + 9 if side == "left" else px - 9 - wide
            boxes[side, dy] = (left, py + dy, left + wide, py + dy + 12)
        free = [
            place
            for place, box in boxes.items()
            if frame.x0 <= box[0] and box[2] <= frame.x1 and not any(_meet(box, other) for other in taken)
        ]
        side, dy = (free or places)[0]
        taken.append(boxes[side, dy])
        shift = (9 if side == "left" else -9, dy + 1)
        axes.annotate(name, (cost, value), shift, textcoords="offset points", ha=side, fontsize=11)


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
