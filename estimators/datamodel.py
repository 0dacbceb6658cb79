"""Datamodels: a sparse linear regression per query from the masks of many runs to that query's outputs.

Ilyas, Park, Engstrom, Leclerc, Madry, "Datamodels: Predicting Predictions from Training Data", 2022, equation 4: for every query,
minimize over bias and weights  1/(2m) ||outputs - bias - masks @ weights||^2 + lambda ||weights||_1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError, model_validator
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence, Runs
from estimators.lasso.bootstrap import bootstrap
from estimators.lasso.collect import FEWEST, Block, Split, blocks_of, collect
from estimators.lasso.cost import GIB, LAPTOP, Forecast, Machine, duration, forecast, this_machine
from estimators.lasso.curve_cost import affordable_queries, forecast_curve
from estimators.lasso.fit import Fit, fit
from estimators.lasso.jit import cores
from estimators.lasso.learning_curve import FEWEST_HELD, learning_curve
from estimators.lasso.pieces import Job, cut, fit_in_pieces
from estimators.lasso.settings import Settings
from workers.errors import ConfigError, DataError

LARGE_SECONDS = 60.0
"""Estimated time on a laptop from which a fit is forecast, done in pieces and resumed."""
FEWEST_QUERIES = 20
"""Queries on which a learning curve is worth its while, where there are so many."""


def fit_blocks(blocks: Callable[[], Iterable[Block]], subsets: NDArray[np.int64], settings: Settings, seed: int) -> Fit:
    """Fit datamodels to runs that are read block by block: `blocks()` starts a new pass over (masks, outputs) pairs.

    `subsets` (m,) says which subset each run is of; runs of one subset are held out together. One pass for the fit, and one for
    each resample of the bootstrap.
    """
    split = Split.draw(subsets, settings, seed)
    collected = collect(blocks(), split, settings)
    found = fit(collected, settings)
    if not settings.bootstrap:
        return found
    errors, frequencies = bootstrap(blocks, split, found, collected.rest.shift, settings)
    return replace(found, standard_errors=errors, frequencies=frequencies)


class DatamodelEstimator(Settings, Estimator):
    """Fit f_q(S) = bias[q] + sum over i in S of tau[i, q] by a LASSO per query; lambda is chosen on held-out subsets."""

    name: ClassVar[str] = "datamodel"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})

    design: str | None = Field(None, description="the fitting design, when the sweep has several")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="GiB that the fit (each worker's, on a cluster) may take; beyond, queries are fitted block by block; null: "
        "half of the machine's",
    )
    learning_curve: bool | None = Field(
        None, description="say what more runs would bring, on a sample of the queries; null: where that is cheap"
    )

    @model_validator(mode="after")
    def _curve_of_a_path(self) -> Self:
        if self.learning_curve and self.penalty == "ridge":
            raise ValueError("learning_curve: true goes with penalty: l1 only")
        return self

    def check(self, evidence: Evidence) -> None:
        """Refuse so many examples that not even the Gram matrices fit into the budget."""
        self._forecast(FEWEST, evidence).require_fits()

    def attribute(self, evidence: Evidence) -> Attribution:
        """Return the coefficients (n, t) and intercepts (t,), refitted on all runs of the design."""
        runs = evidence.of_kind("subsets", "bernoulli", "explicit", design=self.design)
        expected = self._forecast(len(runs.subsets), evidence)
        expected.require_fits()
        large = expected.queries_per_block < evidence.t or expected.seconds > LARGE_SECONDS
        if self.learning_curve:
            self._announce_curve(len(runs.subsets), expected.machine, evidence)
        found = self._fit_large(runs, expected, evidence) if large else self._fit(runs, evidence.seed)
        details = _details(found, self)
        queries = self._curve_queries(runs, found, expected.machine, large)
        curve = self._curve(runs, queries, evidence) if queries else None
        errors = found.standard_errors
        return Attribution(
            np.ascontiguousarray(found.coefficients.T, np.float32),
            found.intercepts.astype(np.float32),
            None if errors is None else np.ascontiguousarray(errors.T, np.float32),
            fitted_on=(runs.design,),
            models=len(runs.subsets),
            details=details if curve is None else {**details, "learning_curve": curve},
        )

    def _forecast(self, m: int, evidence: Evidence) -> Forecast:
        memory = evidence.workspace.memory if self.memory_gb is None else int(self.memory_gb * GIB)
        threads = self.threads or evidence.workspace.threads or cores()
        return forecast(m, evidence.n, evidence.t, self, replace(LAPTOP, cores=threads, memory=memory))

    def _fit(self, runs: Runs, seed: int) -> Fit:
        return fit_blocks(runs.blocks, runs.subsets, self, seed)

    def _fit_large(self, runs: Runs, expected: Forecast, evidence: Evidence) -> Fit:
        """Say what it will take, then fit piece by piece."""
        workspace = evidence.workspace
        measured = this_machine(expected.machine.memory, expected.machine.cores)
        for line in cut(forecast(len(runs.subsets), evidence.n, evidence.t, self, measured), workspace).lines():
            workspace.say(line)
        settings = Settings(**self.model_dump(include=set(Settings.model_fields)))
        if self.threads is None and workspace.threads is not None:
            settings = settings.model_copy(update={"threads": workspace.threads})
        split = Split.draw(runs.subsets, settings, evidence.seed)
        return fit_in_pieces(Job(runs, split, settings, evidence.n, evidence.t), expected, workspace)

    def _announce_curve(self, m: int, machine: Machine, evidence: Evidence) -> None:
        """Refuse a learning curve whose masks do not fit into the budget, and say beforehand what a long one takes."""
        curve = forecast_curve(m, evidence.n, evidence.t, self, machine)
        if curve.memory > machine.memory:
            raise ConfigError(
                f"learning_curve: true needs all masks in memory, {curve.memory / GIB:.3g} GiB with what it computes, the "
                f"budget is {machine.memory / GIB:.3g} GiB: raise memory_gb or leave it out"
            )
        if curve.seconds > LARGE_SECONDS:
            here = replace(curve, machine=this_machine(machine.memory, machine.cores))
            evidence.workspace.say(f"learning curve on {here.machine.name}: about {duration(here.seconds)} more")

    def _curve_queries(self, runs: Runs, found: Fit, machine: Machine, large: bool) -> int:
        """Return of how many queries there is to be a learning curve: of all when asked for, else of as many as are cheap."""
        t, n = found.coefficients.shape
        if self.learning_curve is not None:
            return t if self.learning_curve else 0
        held = round(self.holdout * len(np.unique(runs.subsets)))
        if large or self.penalty == "ridge" or held < FEWEST_HELD:
            return 0
        count = affordable_queries(len(runs.subsets), n, t, int(np.median(found.nonzeros)), self, machine)
        return count if count >= min(t, FEWEST_QUERIES) else 0

    def _curve(self, runs: Runs, queries: int, evidence: Evidence) -> dict[str, Any]:
        """Return the points of the learning curve of some queries, what they say, and how long that took."""
        started = time.perf_counter()
        chosen = np.sort(np.random.default_rng([evidence.seed, 3]).permutation(evidence.t)[:queries])
        curve = learning_curve(runs.masks, runs.outputs[:, chosen], runs.subsets, self, evidence.seed)
        return {**curve.plain(), "seconds": time.perf_counter() - started}


def _details(found: Fit, settings: Settings) -> dict[str, Any]:
    """Return what is worth keeping of a fit beside its weights."""
    return {
        "summary": found.summary(),
        "lambda": found.penalties.tolist(),
        "relative_gap": found.gaps.tolist(),
        "unconverged": np.flatnonzero(~found.converged).tolist(),
        "heldout_r2": found.heldout_r2.tolist(),
        "heldout_spearman": found.heldout_spearman.tolist(),
        "nonzeros": found.nonzeros.tolist(),
        "heldout_subsets": np.unique(found.split.subsets[found.split.parts >= 0]).tolist(),
        "split_seed": found.split.seed,
        "settings": settings.model_dump(mode="json"),
    }


class Datamodel(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A LASSO (elastic net, ridge) for many targets over one binary design, in scikit-learn's conventions.

    Every target has its own lambda, chosen on held-out rows. After `fit`: `coef_` (t, n), `intercept_` (t,), `lambda_` (t,),
    `gap_` (t,) relative duality gaps, `converged_` (t,), `heldout_r2_` and `heldout_spearman_` (t,), `standard_errors_` and
    `frequencies_` (t, n) or None, and `fit_`, the whole `Fit`. Options are those of `estimators.lasso.Settings`.
    """

    def __init__(
        self,
        *,
        penalty: Literal["l1", "ridge"] = "l1",
        ridge: float = 0.0,
        holdout: float = 0.15,
        folds: int | None = None,
        rule: Literal["minimum", "one_standard_error"] = "minimum",
        lambdas: int = 40,
        epsilon: float = 1e-3,
        patience: int | None = 4,
        standardize: bool = False,
        tolerance: float = 1e-4,
        max_sweeps: int = 10_000,
        precision: Literal["float32", "float64"] = "float32",
        bootstrap: int = 0,
        threads: int | None = None,
        device: str = "cpu",
        solver: Literal["auto", "descent", "fista"] = "auto",
        seed: int = 0,
    ):
        self.penalty, self.ridge = penalty, ridge
        self.holdout, self.folds, self.rule = holdout, folds, rule
        self.lambdas, self.epsilon, self.patience = lambdas, epsilon, patience
        self.standardize, self.tolerance, self.max_sweeps = standardize, tolerance, max_sweeps
        self.precision, self.bootstrap = precision, bootstrap
        self.threads, self.device, self.solver, self.seed = threads, device, solver, seed

    def settings(self) -> Settings:
        """Return the options, validated. Raises ConfigError."""
        options = {name: value for name, value in self.get_params().items() if name != "seed"}
        try:
            return Settings(**options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "settings"
            raise ConfigError(f"Datamodel: {where}: {first['msg']}, found {first['input']!r}") from None

    def fit(self, masks: ArrayLike, outputs: ArrayLike, subsets: ArrayLike | None = None) -> Self:
        """Fit masks (m, n), bool or 0/1, to outputs (m, t) or (m,), NaN where a run has none.

        `subsets` (m,) names the subset of each run when several runs (seeds) share one: they are held out together. By default
        runs with equal masks do. Raises DataError.
        """
        x, y = as_masks(masks), np.asarray(outputs)
        y = y if np.issubdtype(y.dtype, np.floating) else y.astype(np.float64)
        if y.ndim not in (1, 2) or len(y) != len(x):
            raise DataError(f"outputs have shape {y.shape}, expected ({len(x)}, t) as there are {len(x)} masks")
        self._single = y.ndim == 1
        y = y.reshape(len(x), -1)
        groups = _equal_masks(x) if subsets is None else np.asarray(subsets)
        if groups.shape != (len(x),):
            raise DataError(f"subsets have shape {groups.shape}, expected ({len(x)},)")
        return self._keep(fit_blocks(lambda: blocks_of(x, y), groups, self.settings(), self.seed), x.shape[1])

    def fit_blocks(self, blocks: Callable[[], Iterable[Block]], subsets: NDArray[np.int64]) -> Self:
        """Fit runs that are read block by block (see `fit_blocks` of this module); never holds all masks at once."""
        self._single = False
        found = fit_blocks(blocks, subsets, self.settings(), self.seed)
        return self._keep(found, found.coefficients.shape[1])

    def _keep(self, found: Fit, n: int) -> Self:
        self.fit_, self.n_features_in_ = found, n
        self.coef_, self.intercept_, self.lambda_ = found.coefficients, found.intercepts, found.penalties
        self.gap_, self.converged_ = found.gaps, found.converged
        self.heldout_r2_, self.heldout_spearman_ = found.heldout_r2, found.heldout_spearman
        self.standard_errors_, self.frequencies_ = found.standard_errors, found.frequencies
        return self

    def predict(self, masks: ArrayLike) -> NDArray[np.float64]:
        """Return the predicted outputs of subsets: masks (m, n) -> (m, t), or (m,) after a fit to (m,)."""
        check_is_fitted(self)
        x = as_masks(masks)
        if x.shape[1] != self.n_features_in_:
            raise DataError(
                f"masks have {x.shape[1]} columns, the datamodel was fitted on {self.n_features_in_} examples"
            )
        predicted: NDArray[np.float64] = x @ self.coef_.T.astype(np.float64) + self.intercept_
        return predicted[:, 0] if self._single else predicted


def as_masks(masks: ArrayLike) -> NDArray[np.bool_]:
    """Return masks (m, n) as bool. Raises DataError for anything but booleans, zeros and ones."""
    x = np.asarray(masks)
    if x.ndim != 2 or not x.size:
        raise DataError(f"masks have shape {x.shape}, expected (runs, examples)")
    if x.dtype != np.bool_:
        strange = (x != 0) & (x != 1)
        if strange.any():
            raise DataError(
                f"masks contain {int(strange.sum())} values that are neither 0 nor 1, such as {x[strange][0]!r}"
            )
        x = x.astype(np.bool_)
    return np.ascontiguousarray(x)


def _equal_masks(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ids (m,) that are equal where masks are, numbered as they first appear."""
    packed = np.ascontiguousarray(np.packbits(masks, axis=1))
    rows = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    ids: NDArray[np.int64] = np.argsort(np.argsort(first))[inverse]
    return ids
