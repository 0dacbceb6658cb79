"""What scores and the report will take: both stages are done on a sweep that is made up, with few queries.

Subsets, seeds and resamples are as many as there will be. Time grows with the queries in a straight line, that of scores with the
attributions, and that of drawing with the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.forecast.cost import REPORT, SCORES, StageForecast
from orchestrator.forecast.time_limit import along, some_of, timed, tried
from orchestrator.stages.made_up_sweep import made_up_sweep, most_judged
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.roles import scoring_design
from orchestrator.sweeps.sweep import Sweep

if TYPE_CHECKING:
    from orchestrator.report.data import ReportData

FIGURE = 'role="img"'
"""What every figure on the page has, once."""
BUDGET_SECONDS = 20.0
"""What the rehearsal may take, at most."""
CHARTS, PLOTS, PLOTTED = 4, 3, 2
"""Figures that compare all estimators; scatter plots of one; and of how many there are some."""


@dataclass(frozen=True)
class _Rehearsed:
    """Seconds on so many queries."""

    alone: float
    """What belongs to the sweep as a whole is scored."""
    one: float
    """One attribution is scored."""
    gathered: float
    """What the report shows is gathered, of all attributions."""
    page: float = 0.0
    """The page is made ready to be filled."""
    figure: float = 0.0
    """The page is filled, a figure."""


def stage_times(
    sweep: Sweep, plans: Mapping[str, DesignPlan], budget: float = BUDGET_SECONDS
) -> tuple[StageForecast, StageForecast]:
    """Return what scores and the report will take, in this process as in a sweep; nothing is kept."""
    one = tried(lambda: _times(sweep, plans), budget)
    scores, report = (0.0, 0.0) if one.found is None else one.found
    return StageForecast(SCORES, scores, one.unknown), StageForecast(REPORT, report, one.unknown)


def _times(sweep: Sweep, plans: Mapping[str, DesignPlan]) -> tuple[float, float]:
    few = _rehearse(sweep, plans, 1, first=True)
    more = few if sweep.t == 1 else _rehearse(sweep, plans, some_of(sweep.t))
    alone, one, gathered = (
        along(getattr(few, part), getattr(more, part), sweep.t) for part in ("alone", "one", "gathered")
    )
    return alone + len(sweep.config.estimators) * one, gathered + few.page + figures(sweep) * few.figure


def _rehearse(sweep: Sweep, plans: Mapping[str, DesignPlan], queries: int, first: bool = False) -> _Rehearsed:
    from orchestrator.report.collect import collect
    from orchestrator.scoring.registry import metrics
    from orchestrator.stages.score import score

    with made_up_sweep(sweep, plans, queries) as (made, store):
        judged = _with_one_attribution(made)
        if first:  # pays for what is done once: imports, compilation
            score(judged, store)
        alone = timed(lambda: [metric.judge_sweep(made, store) for metric in metrics()])
        whole = timed(lambda: score(judged, store))
        gathered = timed(lambda: collect(made, store))
        found = _Rehearsed(alone, max(0.0, whole - alone), gathered)
        return replace(found, **_drawing(collect(made, store))) if first else found


def _with_one_attribution(sweep: Sweep) -> Sweep:
    label = most_judged(sweep.config)
    some = {} if label is None else {label: sweep.config.estimators[label]}
    return replace(sweep, config=sweep.config.model_copy(update={"estimators": some}))


def _drawing(data: ReportData) -> dict[str, float]:
    from orchestrator.report.page.html import PAGE, render
    from orchestrator.report.page.templates import template

    pages: list[str] = []
    ready = timed(lambda: template(PAGE))
    seconds = timed(lambda: pages.append(render(data)))
    return {"page": ready, "figure": seconds / max(1, pages[0].count(FIGURE))}


def figures(sweep: Sweep) -> int:
    """Return how many figures the report will have, about: of learning curves only the estimators know."""
    from orchestrator.report.sections import drawn_comparisons

    config, measure = sweep.config, sweep.config.measures[0]
    found = sum(len(drawn_comparisons(one.when)) for one in config.stop.values())
    if config.scores.removal is not None:
        found += len(set(config.scores.removal.order))
    if scoring_design(config, "lds") is not None and config.estimators:
        same = sum(section.measure in (None, measure) for section in config.estimators.values())
        found += CHARTS + min(PLOTTED, same) * min(PLOTS, sweep.t)
    return max(1, found)
