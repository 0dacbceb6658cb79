"""Examples up- or down-weighted by given factors: from a file, or one step against or along an attribution."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.designs.base import Context, Design, read_array
from workers.errors import ConfigError, UserError


@lru_cache(maxsize=4)
def _load(path: Path, key: str, modified: int) -> NDArray[np.generic]:
    """Load a file of weights once for each time it was written (`modified`)."""
    return read_array(path, key)


class AlongAttribution(BaseModel):
    """w = 1 - lr * tau[:, q], a row for every query q: a step that lowers the measured output of q where tau is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: str = Field(description="folder of the sweep that holds the attribution")
    estimator: str = Field(description="label of the attribution there")
    queries: tuple[int, ...] = Field(min_length=1, description="queries, a row of weights each")
    lr: float = Field(allow_inf_nan=False, description="factor of the attribution; below 0 raises what it lowers")


class Weights(Design):
    """Examples that weigh what they are told to: their losses are multiplied by given factors, 0 leaves one out.

    For the effect of up- and down-weighting: of weights of your own, or of a step along an attribution. Estimators and scores of
    subsets know nothing of weights, so no estimator is fitted on these runs and nothing is scored on them.
    """

    from_outside: ClassVar[bool] = True
    weighs: ClassVar[bool] = True
    keeps_its_side: ClassVar[bool] = True

    kind: Literal["weights"]
    file: str | None = Field(None, description="path of a .npy file, (n,) or (rows, n) numbers of at least 0")
    attribution: AlongAttribution | None = Field(
        None, description="instead of a file: w = 1 - lr * tau, by sweep, estimator, queries and lr"
    )

    @model_validator(mode="after")
    def _come_from_one_place(self) -> Weights:
        if (self.file is None) == (self.attribution is None):
            raise ValueError("weights come from a `file` or from an `attribution`; give one of them")
        if self.purpose != "fit":
            raise ValueError("purpose: score needs subsets; scores know nothing of weights")
        return self

    def rows(self, context: Context) -> NDArray[np.float32]:
        """Return all weights (rows, n). Raises ConfigError for a file or an attribution that cannot be had, or is ill-shaped."""
        if self.attribution is not None:
            return self._along(self.attribution, context)
        assert self.file is not None
        path, key = context.folder / self.file, f"designs.{context.name}.file"
        found = _load(path, key, path.stat().st_mtime_ns if path.exists() else 0)
        if found.dtype.kind not in "biuf":
            raise ConfigError(f"{key}: {path} holds {found.dtype}, expected numbers")
        if found.shape[-1:] != (context.n,) or found.ndim > 2 or not found.size:
            raise ConfigError(f"{key}: {path} has shape {found.shape}, expected ({context.n},) or (rows, {context.n})")
        return np.atleast_2d(found).astype(np.float32)

    def _along(self, said: AlongAttribution, context: Context) -> NDArray[np.float32]:
        """Return 1 - lr * tau (queries, n)."""
        key = f"designs.{context.name}.attribution"
        if context.attribution is None:
            raise ConfigError(f"{key}: no attributions can be read here")
        try:
            tau = context.attribution((context.folder / said.sweep).resolve(), said.estimator)
        except UserError as error:
            raise ConfigError(f"{key}: {error}") from error
        n, t = tau.shape
        if n != context.n:
            raise ConfigError(f"{key}: {said.estimator!r} is of {n} examples, expected {context.n}")
        wrong = [query for query in said.queries if not 0 <= query < t]
        if wrong:
            raise ConfigError(f"{key}.queries: {wrong[0]} is not a query of {said.estimator!r}; expected 0 to {t - 1}")
        weights: NDArray[np.float32] = (1 - said.lr * tau[:, list(said.queries)].astype(np.float64)).T.astype(
            np.float32
        )
        return weights

    def check(self, context: Context) -> None:
        """Refuse weights that are negative or not finite, and rows without any."""
        weights, key = self.rows(context), f"designs.{context.name}.{'attribution' if self.file is None else 'file'}"
        with np.errstate(invalid="ignore"):
            wrong = np.argwhere(~(np.isfinite(weights) & (weights >= 0)))
        if len(wrong):
            row, example = wrong[0]
            raise ConfigError(
                f"{key}: example {example} of row {row} weighs {weights[row, example]:g}, expected finite numbers of at least 0 "
                f"({len(wrong):,} are not)"
            )
        empty = np.flatnonzero(~weights.any(axis=1))
        if len(empty):
            raise ConfigError(f"{key}: row {empty[0]} has no weight above 0; at least one example must be trained on")

    def count(self, context: Context) -> int:
        """Return the number of rows of weights."""
        return len(self.rows(context))

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        """Return which examples (n,) of a row weigh anything."""
        mask: NDArray[np.bool_] = self.many(np.array([index]), context)[0]
        return mask

    def many(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.bool_]:
        """Return which examples of some rows weigh anything (k, n)."""
        masks: NDArray[np.bool_] = self.weights_of(subsets, context) != 0
        return masks

    def mean_size(self, context: Context) -> float:
        """Return the mean number of examples that weigh anything."""
        return float((self.rows(context) != 0).sum(axis=1).mean())

    def weights_of(self, subsets: NDArray[np.int64], context: Context) -> NDArray[np.float32]:
        """Return some rows (k, n)."""
        return self.rows(context)[subsets]
