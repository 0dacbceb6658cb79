"""Decide what to train, run it on Ray, keep what comes back, and turn it into attributions, scores and a report.

For scripts and notebooks (docs/python.md):

    sweep = orchestrator.run("digits", out="runs/digits")   # everything that `counterfactory run` does
    sweep = orchestrator.open_sweep("runs/digits")          # a finished one, or one that is running: read-only
    sweep.scores(), sweep.top(query=0, estimator="ekfac"), sweep.attribution("ekfac"), sweep.runs("fit")
    orchestrator.plan("digits")                             # what it would train, and what that would take
    orchestrator.sensitivity("runs/digits", "influence", "damping")  # the LDS over an option
    orchestrator.score("runs/digits", tau)                  # judge anybody's (n, t) array
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.lazy_exports import exports

if TYPE_CHECKING:
    from orchestrator.api.opened_sweep import OpenedSweep, open_sweep
    from orchestrator.api.running import PlannedSweep, plan, run, score, sensitivity
    from orchestrator.api.score_table import ScoreTable
    from orchestrator.config.schema import Config

__all__ = ["Config", "OpenedSweep", "PlannedSweep", "ScoreTable", "open_sweep", "plan", "run", "score", "sensitivity"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Config": "orchestrator.config.schema",
        "OpenedSweep": "orchestrator.api.opened_sweep",
        "PlannedSweep": "orchestrator.api.running",
        "ScoreTable": "orchestrator.api.score_table",
        "open_sweep": "orchestrator.api.opened_sweep",
        "plan": "orchestrator.api.running",
        "run": "orchestrator.api.running",
        "score": "orchestrator.api.running",
        "sensitivity": "orchestrator.api.running",
    },
)
