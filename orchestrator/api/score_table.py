"""The table of scores as a notebook shows it."""

from __future__ import annotations

import pandas as pd

from orchestrator.report.page.notebook import scores_html


class ScoreTable(pd.DataFrame):
    """The scores as a pandas.DataFrame, a row an (estimator, metric), that Jupyter shows as the leaderboard with its bars.

    Columns: those of `orchestrator.scoring.table.ScoreRow`. What is selected from it is a plain DataFrame.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        """What pandas makes of a selection: it may lack the columns that a leaderboard needs."""
        return pd.DataFrame

    def _repr_html_(self) -> str:
        return scores_html(self)
