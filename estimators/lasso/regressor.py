"""`Datamodel`: the sparse regression as a scikit-learn regressor, and the one function under it and under the estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from estimators.lasso.bootstrap import bootstrap
from estimators.lasso.collect import Block, Split, blocks_of, collect
from estimators.lasso.fit import Fit, fit
from estimators.lasso.settings import Settings
from workers.errors import ConfigError, DataError


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


class Datamodel(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A LASSO (elastic net, ridge) for many targets over one binary design, in scikit-learn's conventions.

    Every target has its own lambda, chosen on held-out rows. After `fit`: `coef_` (t, n), `intercept_` (t,), `lambda_` (t,),
    `gap_` (t,) relative duality gaps, `converged_` (t,), `heldout_r2_` and `heldout_spearman_` (t,), `standard_errors_` and
    `frequencies_` (t, n) or None, and `fit_`, the whole `Fit`. Options are those of `estimators.lasso.Settings`.

    >>> from itertools import product
    >>> import numpy as np
    >>> from estimators import Datamodel
    >>> masks = np.array(list(product([False, True], repeat=5)))  # all subsets of 5 examples
    >>> outputs = 3 + masks @ np.array([[2.0, 0.0], [-1.0, 0.0], [0.5, 1.0], [0.0, 0.0], [0.0, -3.0]])
    >>> model = Datamodel().fit(masks, outputs)
    >>> (model.coef_.astype(float).round(1) + 0.0).tolist()  # a row a target
    [[2.0, -1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, -3.0]]
    >>> model.predict(masks[-1:]).astype(float).round(1).tolist()
    [[4.5, 1.0]]
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
