"""The page: figures, tables and exhibits put into the template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from orchestrator.report import text
from orchestrator.report.data import LearningLine, ReportData
from orchestrator.report.page import figures, foretold, gallery, leaderboard, learning_curves
from orchestrator.report.page.leaderboard import Entry
from orchestrator.report.page.shown_score import scale_of
from orchestrator.report.page.templates import resource, template
from workers.measures import HIGHER_IS_BETTER, LOWER_IS_BETTER
from workers.wording import duration

PAGE = "template.html.j2"
"""What is filled."""
MOST_QUERIES = 5
"""Queries in the gallery; the scatter plots take three."""


@dataclass(frozen=True)
class Prediction:
    """The row of scatter plots of one estimator."""

    estimator: str
    plots: tuple[tuple[str, Markup], ...]
    """(which query, figure)."""


def render(data: ReportData) -> str:
    """Return the report as one HTML page that loads nothing else and runs no script."""
    boards = leaderboard.boards(data)
    board = boards[0].entries if boards else ()
    ranked = tuple(entry for entry in board if math.isfinite(entry.lds.value))
    context = {
        "data": data,
        "text": text,
        "duration": duration,
        "css": Markup(resource("style.css")),
        "boards": boards,
        "best": ranked[0] if ranked else None,
        "best_loo": max((e.loo.value for e in board if e.loo and math.isfinite(e.loo.value)), default=None),
        "check": leaderboard.seed_check(data),
        "scale": scale_of([entry.lds for one in boards for entry in one.entries]),
        "others": [(one, scale_of([line.score for line in one.lines])) for one in leaderboard.others(data)],
        "charts": _charts(data, _main_design(ranked)),
        "unplaced": [entry.estimator for entry in _main_design(ranked) if not entry.models],
        "runs": _totals(data),
        "values": _values(data),
        "growth": _growth(data, _main_design(ranked)),
        "stops": [(one, figures.stop_curve(one, f"stop-{k}")) for k, one in enumerate(data.stopping)],
        **_inspection(data, ranked),
        **_direction(data.measure),
    }
    return template(PAGE).render(context)


def _main_design(board: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return the entries scored on the design that the best one is scored on: figures compare like with like."""
    return tuple(entry for entry in board if entry.design == board[0].design)


def _charts(data: ReportData, board: tuple[Entry, ...]) -> Mapping[str, Markup]:
    """Return the figures that compare estimators; those without anything to show are not there."""
    if not board:
        return {}
    charts = {"lds": figures.lds_intervals(board)}
    known = [entry for entry in board if np.isfinite(data.per_query_lds.get(entry.estimator, np.empty(0))).any()]
    if known:
        charts["per_query"] = figures.per_query(known, data.per_query_lds, data.per_query_ceiling)
    if counted := [entry for entry in board if entry.models]:
        charts["models"] = figures.lds_against(counted, lambda e: float(e.models or 0), "models trained", "cost-models")
    if timed := [entry for entry in board if entry.models and entry.seconds > 0]:
        charts["seconds"] = figures.lds_against(
            timed, lambda e: e.seconds, "training and attribution time", "cost-seconds", seconds=True
        )
    return charts


def _growth(data: ReportData, board: tuple[Entry, ...]) -> list[tuple[LearningLine, Markup, str]]:
    """Return each learning curve, its figure and what it says of the LDS where the estimator has one."""
    lds = {entry.estimator: entry.lds for entry in board}
    return [
        (
            curve,
            learning_curves.figure(curve, leaderboard.family(data, curve.estimator), f"growth-{k}"),
            learning_curves.sentence(curve, lds.get(curve.estimator)),
        )
        for k, curve in enumerate(data.learning_curves)
    ]


def _values(data: ReportData) -> dict[str, Any]:
    """Return what the section on values shows; each part is empty where there is nothing."""
    loss = {one.measure for one in data.utilities} & LOWER_IS_BETTER
    return {
        "worth": [(one, one.measure in loss, gallery.valued(data, one)) for one in data.utilities] if data.show else [],
        "detections": leaderboard.detections(data),
        "suspects": () if data.suspects is None else gallery.suspected(data, data.suspects),
        "saturates": leaderboard.saturates(data),
        "areas": leaderboard.areas(data),
        "curves": [
            (title, figures.removal_curves(lines, title, f"removal-{order}"))
            for order, title in (("best", "The most valued removed first"), ("worst", "The least valued removed first"))
            if any(line.order == order for line in data.removal)
            and (lines := [line for line in data.removal if line.order in (order, "any")])
        ],
        "groups": data.group_effects,
        "foretold": [(one, foretold.figure(one, f"foretold-{k}")) for k, one in enumerate(data.foretold)],
        "by_class": [(table, table.measure in LOWER_IS_BETTER) for table in data.class_effects],
    }


def _inspection(data: ReportData, board: tuple[Entry, ...]) -> dict[str, Any]:
    """Return the scatter plots and the gallery: queries from well to badly predicted by the best estimator."""
    guides = [entry for entry in board if np.isfinite(data.per_query_lds.get(entry.estimator, np.empty(0))).any()]
    if not guides:
        return {"guide": None, "predictions": (), "cases": ()}
    lds = data.per_query_lds[guides[0].estimator]
    plotted = leaderboard.pair(board, set(data.predicted) & set(data.per_query_lds))
    shown = leaderboard.pair(board, set(data.attributions))
    return {
        "guide": guides[0].estimator,
        "predictions": tuple(
            _prediction(data, entry, gallery.spread(lds, 3), row) for row, entry in enumerate(plotted)
        ),
        "cases": gallery.cases(data, shown, lds, gallery.spread(lds, MOST_QUERIES)),
    }


def _prediction(data: ReportData, entry: Entry, queries: list[int], row: int) -> Prediction:
    names = ["best predicted", "median", "worst predicted"] if len(queries) == 3 else [""] * len(queries)
    plots = []
    for column, (query, name) in enumerate(zip(queries, names, strict=True)):
        lds = float(data.per_query_lds[entry.estimator][query])
        title = f"query {query}{', ' + name if name else ''}: LDS {text.decimal(lds, 2)}"
        plot = figures.predicted_actual(
            data.predicted[entry.estimator][:, query],
            data.actual[:, query],
            entry,
            data.measure,
            lds,
            f"fit-{row}-{column}",
        )
        plots.append((title, plot))
    return Prediction(entry.estimator, tuple(plots))


def _direction(measure: str) -> dict[str, Any]:
    """Return what the two ends of an attribution are called, and whether the raising end is the good one."""
    if measure in HIGHER_IS_BETTER:
        return {"raising": "most helpful", "lowering": "most harmful", "loss_like": False}
    if measure in LOWER_IS_BETTER:
        return {"raising": "most harmful", "lowering": "most helpful", "loss_like": True}
    return {"raising": f"raise {measure} most", "lowering": f"lower {measure} most", "loss_like": False}


def _totals(data: ReportData) -> Mapping[str, float]:
    return {
        "runs": sum(design.runs for design in data.designs),
        "done": sum(design.done for design in data.designs),
        "failed": sum(design.failed for design in data.designs),
        "wall": sum(data.stage_seconds.values()),
        "longest": max(data.stage_seconds.values(), default=0.0),
    }
