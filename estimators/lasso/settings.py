"""What a user may choose of a datamodel fit."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """The options of the many-query LASSO, validated and described; shared by the estimator and the regressor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    penalty: Literal["l1", "ridge"] = Field("l1", description="l1: LASSO or elastic net, by a path; ridge: pure ridge")
    ridge: float = Field(0.0, ge=0, description="elastic net: coefficient of ||w||^2/2 beside the l1 term")
    holdout: float = Field(0.15, gt=0, lt=1, description="fraction of the subsets that choose lambda")
    folds: int | None = Field(None, ge=2, description="choose lambda by so many folds instead of one held-out part")
    rule: Literal["minimum", "one_standard_error"] = Field(
        "minimum", description="the lambda of least held-out error, or the largest within one standard error of it"
    )
    lambdas: int = Field(40, ge=2, description="length of the geometric path")
    epsilon: float = Field(1e-3, gt=0, lt=1, description="last lambda of the path over the first, lambda_max")
    patience: int | None = Field(
        4, ge=1, description="stop a path after so many lambdas without a lower held-out error; null walks all of it"
    )
    standardize: bool = Field(False, description="penalize the coefficients of columns scaled to unit variance")
    tolerance: float = Field(1e-4, gt=0, description="largest duality gap, relative to the objective at w = 0")
    max_sweeps: int = Field(10_000, ge=1, description="most sweeps (or FISTA iterations) a lambda may take")
    precision: Literal["float32", "float64"] = Field("float32", description="arithmetic of the path")
    bootstrap: int = Field(0, ge=0, description="resamples of the subsets for standard errors and selection frequency")
    threads: int | None = Field(None, ge=1, description="threads of the solver; null takes all cores it may use")
    device: str = Field("cpu", description="where matrix products and FISTA run: cpu, cuda, cuda:1, ...")
    solver: Literal["auto", "descent", "fista"] = Field(
        "auto",
        description="coordinate descent (always on the CPU) or lock-step FISTA; auto takes descent on the CPU only",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.precision == "float32" and self.tolerance < 1e-6:
            raise ValueError(
                f"tolerance {self.tolerance:g} is below what float32 resolves (1e-6): set precision: float64"
            )
        if self.penalty == "ridge" and self.ridge:
            raise ValueError(
                "ridge is the elastic net's term; with penalty: ridge the coefficient is chosen on the path"
            )
        return self

    @property
    def by_descent(self) -> bool:
        """Whether paths are solved by coordinate descent."""
        return self.solver == "descent" or (self.solver == "auto" and self.device == "cpu")

    @property
    def dtype(self) -> DTypeLike:
        """The floating type of the path."""
        return np.float32 if self.precision == "float32" else np.float64

    def grid(self) -> NDArray[np.float64]:
        """Return the path relative to lambda_max, (lambdas,), from 1 down to epsilon."""
        return np.geomspace(1.0, self.epsilon, self.lambdas)
