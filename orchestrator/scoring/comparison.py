"""Which rows of a table can be told apart: differences from the same resamples, to the best and to the next."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from estimators.scores import Estimate, difference
from orchestrator.scoring.ranking import quantity, ranked
from orchestrator.scoring.regime import regime_of
from orchestrator.scoring.table import ScoreRow


def compare(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows, in their order, with their differences to the best and to the next of their table.

    Compared are rows of one quantity that were judged by the same subsets and queries, with as many resamples. Where neither
    end of a quantity is good there is no best. What cannot be compared stays as it is.
    """
    rows = list(rows)
    together: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        if row.resampled is not None and len(row.resampled) > 1 and quantity(row.metric).better is not None:
            together.setdefault(_judged_by(row), []).append(place)
    for places in together.values():
        order = _ranked(rows, places)
        for k, place in enumerate(order):
            best = _apart("behind_best", rows[order[0]], rows[place]) if k else {}
            following = _apart("ahead_of_next", rows[place], rows[order[k + 1]]) if k + 1 < len(order) else {}
            rows[place] = replace(rows[place], **best, **following)
    return rows


def _ranked(rows: list[ScoreRow], places: list[int]) -> list[int]:
    """Return the places of some rows, the best row's first."""
    of = {id(rows[place]): place for place in places}
    return [of[id(row)] for row in ranked(rows[place] for place in places)]


def _judged_by(row: ScoreRow) -> Hashable:
    """Return what rows have in common that can be compared."""
    resamples = 0 if row.resampled is None else len(row.resampled)
    return row.metric, regime_of(row), row.design, row.queries, row.subsets, row.seeds, resamples


def _apart(name: str, better: ScoreRow, worse: ScoreRow) -> Mapping[str, Any]:
    """Return the three columns that say by how much one row is better than another."""
    assert better.resampled is not None
    assert worse.resampled is not None
    up = quantity(better.metric).better == "higher"
    found: Estimate = difference(*((better.resampled, worse.resampled) if up else (worse.resampled, better.resampled)))
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
