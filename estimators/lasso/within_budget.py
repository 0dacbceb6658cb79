"""A datamodel fit within a budget of memory: at once or piece by piece, and the learning curve that goes with it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from estimators.evidence import Evidence, Runs
from estimators.findings import LearningCurve
from estimators.lasso.collect import FEWEST, Split
from estimators.lasso.cost import GIB, LAPTOP, FitCost, Machine, fit_cost, this_machine
from estimators.lasso.curve_cost import affordable_queries, curve_cost
from estimators.lasso.fit import Fit
from estimators.lasso.learning_curve import FEWEST_HELD, learning_curve
from estimators.lasso.pieces import FitJob, cut, fit_in_pieces
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from workers.errors import ConfigError
from workers.machine import cores
from workers.wording import duration

LARGE_SECONDS = 60.0
"""Estimated time on a laptop from which a fit is forecast, done in pieces and resumed."""
FEWEST_QUERIES = 20
"""Queries on which a learning curve is worth its while, where there are so many."""


@dataclass(frozen=True)
class Budgeted:
    """Fits of one evidence's queries, with what they may take."""

    settings: Settings
    evidence: Evidence
    memory_gb: float | None
    """GiB that a fit may take; None takes what the evidence's workspace says."""

    def refuse_too_large(self) -> None:
        """Raise ConfigError where not even a fit of the fewest runs, of one query, is within the budget."""
        self._cost(FEWEST).require_fits()

    def fit(self, runs: Runs, expected: FitCost) -> Fit:
        """Fit all queries: at once, or piece by piece where it is large, and then say before what it will take."""
        if not self.large(expected):
            return fit_blocks(runs.blocks, runs.subsets, self.settings, self.evidence.seed)
        evidence, workspace = self.evidence, self.evidence.workspace
        for line in self._here(runs, expected).lines():
            workspace.say(line)
        settings = self.settings
        if settings.threads is None and workspace.threads is not None:
            settings = settings.model_copy(update={"threads": workspace.threads})
        split = Split.draw(runs.subsets, settings, evidence.seed)
        return fit_in_pieces(FitJob(runs, split, settings, evidence.n, evidence.t), expected, workspace)

    def foresee(self, runs: Runs, curve: bool) -> float | None:
        """Return the seconds that a large fit will take here, with its learning curve if asked for; None for one that is small.

        Raises ConfigError where it is beyond the budget for a single query.
        """
        expected = self.cost(runs)
        if not self.large(expected):
            return None
        here = self._here(runs, expected)
        if not curve:
            return here.seconds
        m, n, t = len(runs.subsets), self.evidence.n, self.evidence.t
        return here.seconds + curve_cost(m, n, t, self.settings, here.machine).seconds

    def cost(self, runs: Runs) -> FitCost:
        """Return what a fit to these runs costs. Raises ConfigError where it is beyond the budget for a single query."""
        expected = self._cost(len(runs.subsets))
        expected.require_fits()
        return expected

    def large(self, expected: FitCost) -> bool:
        """Say whether a fit is done in pieces."""
        return expected.queries_per_block < self.evidence.t or expected.seconds > LARGE_SECONDS

    def announce_curve(self, runs: Runs, machine: Machine) -> None:
        """Refuse a learning curve whose masks do not fit into the budget, and say beforehand what a long one takes."""
        curve = curve_cost(len(runs.subsets), self.evidence.n, self.evidence.t, self.settings, machine)
        if curve.memory > machine.memory:
            raise ConfigError(
                f"learning_curve: true needs all masks in memory, {curve.memory / GIB:.3g} GiB with what it computes, the "
                f"budget is {machine.memory / GIB:.3g} GiB: raise memory_gb or leave it out"
            )
        if curve.seconds > LARGE_SECONDS:
            here = replace(curve, machine=this_machine(machine.memory, machine.cores))
            self.evidence.workspace.say(f"learning curve on {here.machine.name}: about {duration(here.seconds)} more")

    def cheap_queries(self, runs: Runs, found: Fit, expected: FitCost) -> int:
        """Return of how many queries a learning curve is cheap beside their fit; 0 where it is not worth its while."""
        t, n = found.coefficients.shape
        held = round(self.settings.holdout * len(np.unique(runs.subsets)))
        if self.large(expected) or self.settings.penalty == "ridge" or held < FEWEST_HELD:
            return 0
        nonzeros = int(np.median(found.nonzeros))
        count = affordable_queries(len(runs.subsets), n, t, nonzeros, self.settings, expected.machine)
        return count if count >= min(t, FEWEST_QUERIES) else 0

    def curve(self, runs: Runs, queries: int) -> LearningCurve:
        """Return the learning curve of some queries, drawn at random."""
        started = time.perf_counter()
        seed, t = self.evidence.seed, self.evidence.t
        chosen = np.sort(np.random.default_rng([seed, 3]).permutation(t)[:queries])
        curve = learning_curve(runs.masks, runs.outputs[:, chosen], runs.subsets, self.settings, seed)
        found = curve.told()
        return replace(found, seconds=time.perf_counter() - started)

    def _here(self, runs: Runs, expected: FitCost) -> FitCost:
        """Return what a large fit costs in the pieces that it is cut into, on this machine, whose rates are measured for it."""
        measured = this_machine(expected.machine.memory, expected.machine.cores)
        evidence = self.evidence
        whole = fit_cost(len(runs.subsets), evidence.n, evidence.t, self.settings, measured)
        return cut(whole, evidence.workspace)

    def _cost(self, m: int) -> FitCost:
        workspace = self.evidence.workspace
        memory = workspace.memory if self.memory_gb is None else int(self.memory_gb * GIB)
        threads = self.settings.threads or workspace.threads or cores()
        machine = replace(LAPTOP, cores=threads, memory=memory)
        return fit_cost(m, self.evidence.n, self.evidence.t, self.settings, machine)
