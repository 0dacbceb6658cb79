"""The order of a table of scores: metric by metric, the best first."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from orchestrator.scoring.metric import Quantity
from orchestrator.scoring.regime import regime_of
from orchestrator.scoring.registry import quantities
from orchestrator.scoring.table import ScoreRow


@dataclass(frozen=True)
class Table:
    """Rows that may stand below one another: scores of one quantity in one regime."""

    quantity: Quantity
    rows: tuple[ScoreRow, ...]
    """The best first."""


def tables(rows: Iterable[ScoreRow]) -> list[Table]:
    """Return the rows as they are shown: a table a quantity and regime, in the order of the metrics."""
    found: dict[Hashable, list[ScoreRow]] = {}
    for row in ranked(rows):
        found.setdefault((row.metric, regime_of(row)), []).append(row)
    return [Table(quantity(some[0].metric), tuple(some)) for some in found.values()]


def ranked(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the rows in the order of the metrics, those of each from its good end on, what is not a number last.

    Rows of a metric that is not registered here (a package that is not installed) come last, by name, as they were.
    """
    known = quantities()
    places = {name: place for place, name in enumerate(known)}
    return sorted(
        rows, key=lambda row: (places.get(row.metric, len(places)), _unknown(row, known), *_from_good(row, known))
    )


def quantity(name: str) -> Quantity:
    """Return the quantity of that name; one that nobody registered is called by its name, and neither end is good."""
    return quantities().get(name) or Quantity(name, name, better=None)


def _unknown(row: ScoreRow, known: Mapping[str, Quantity]) -> str:
    return "" if row.metric in known else row.metric


def _from_good(row: ScoreRow, known: Mapping[str, Quantity]) -> tuple[bool, float]:
    sign = {"higher": -1.0, "lower": 1.0, None: 0.0}[known[row.metric].better if row.metric in known else None]
    return (True, 0.0) if math.isnan(row.value) else (False, sign * row.value)
