"""The estimator contract: evidence in, attribution out. Arrays and a task; nothing of Ray, Zarr or YAML.

A new estimator is one file with a subclass of `Estimator` and one line in registry.py; a third party's is an entry point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from estimators.evidence import Evidence
from estimators.findings import Findings

Need = Literal["subsets", "leave_one_out", "leave_group_out", "permutations", "full", "checkpoints", "gradients"]
"""What an estimator may ask for."""
NEEDS: Mapping[Need, str] = {
    "subsets": "runs of random subsets",
    "leave_one_out": "leave-one-out runs",
    "leave_group_out": "leave-group-out runs",
    "permutations": "runs of prefixes of permutations",
    "full": "runs on the full set",
    "checkpoints": "checkpoints of models trained on the full set",
    "gradients": "a task of level two or three, which can be differentiated",
}
"""The same in words."""


@dataclass(frozen=True)
class Attribution:
    """What an estimator answers: tau[i, q], by how much including example i raises the measured output of query q."""

    values: NDArray[np.float32]
    """(n, t) float32, in the units of the measure where the estimator has units."""
    bias: NDArray[np.float32] | None = None
    """(t,) so that f_q(S) ~ bias[q] + sum of values[i, q] over S, where the estimator gives one."""
    standard_error: NDArray[np.float32] | None = None
    """(n, t) standard errors of the values, where the estimator gives them."""
    fitted_on: tuple[str, ...] = ()
    """Designs whose runs it used; it is never scored on these."""
    models: int = 0
    """Number of trained models it used."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is worth telling people (lambdas, damping, dimensions): numbers, strings, lists of them. No code reads it."""
    utility: NDArray[np.float32] | None = None
    """(n,) the values of the utility, the measure's mean over the queries, where the estimator gives them."""
    utility_standard_error: NDArray[np.float32] | None = None
    """(n,) their standard errors: smaller than those of single queries, but not by a known factor, as queries share runs."""
    degrees_of_freedom: float = math.inf
    """Degrees of freedom of Student's t that the intervals values +- quantile * standard_error need (the smallest of all)."""
    findings: Findings = field(default_factory=Findings)
    """What stages and reports show beside the values: a summary, a learning curve, effects of groups and by class."""


class Estimator(BaseModel, ABC):
    """An estimator with its options as fields: what the configuration may set, validated and described in the schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: ClassVar[str]
    """Its name in the configuration."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    """What it looks at whatever its options."""
    naming_designs: ClassVar[tuple[str, ...]] = ()
    """Its options that name a fitting design, or None: one that is not there is refused before anything is trained."""
    in_units: ClassVar[bool] = False
    """Whether its values claim to be in units of the measure, whatever its options: 0.1 for a change of 0.1."""

    @classmethod
    def lacking(cls) -> tuple[str, str]:
        """Return the package that it needs and that is not installed, and how it is; two empty words where nothing is lacking."""
        return "", ""

    @property
    def needed(self) -> frozenset[Need]:
        """What it looks at with these options: more than `needs` where an option asks for more."""
        return self.needs

    @property
    def empty_output(self) -> float | None:
        """What its options say that a model of no data outputs for every query; None where they say nothing."""
        return None

    @property
    def claims_units(self) -> bool:
        """Whether its values claim units of the measure with these options. Their scale is then judged, not only their order."""
        return self.in_units

    def check(self, evidence: Evidence) -> None:
        """Raise ConfigError for what can be known to be wrong before anything is trained: `evidence` has no runs yet."""

    def foresee(self, evidence: Evidence) -> float | None:
        """Return the seconds that `attribute` will take on this machine; None where only trying tells.

        It is asked before anything is trained, for a forecast. Of runs `evidence` then has how many there will be, of which kind:
        masks and outputs have their shapes, and nothing in them.
        """
        return None

    def size_of(self, option: str, evidence: Evidence) -> float | None:
        """Return a number of the size that one of its options has on this task, to look around it: its own where it is one.

        None where nothing tells.
        """
        value = getattr(self, option)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @abstractmethod
    def attribute(self, evidence: Evidence) -> Attribution:
        """Return the attribution of every training example for every query."""
