"""Turn runs or gradients into attributions, and score attributions against held-out runs.

What a package of one's own needs is here: `from estimators import Attribution, Estimator, Evidence`. Each name is imported when
it is asked for: who only reads the options of an estimator does not wait for a compiler or for scikit-learn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estimators.contract import Attribution, Estimator, Need
    from estimators.evidence import Evidence, Reference, Runs
    from estimators.lasso.regressor import Datamodel

__all__ = ["Attribution", "Datamodel", "Estimator", "Evidence", "Need", "Reference", "Runs"]

_HOME = {
    "Attribution": "estimators.contract",
    "Datamodel": "estimators.lasso.regressor",
    "Estimator": "estimators.contract",
    "Evidence": "estimators.evidence",
    "Need": "estimators.contract",
    "Reference": "estimators.evidence",
    "Runs": "estimators.evidence",
}


def __getattr__(name: str) -> object:
    """Import a public name from where it lives, when it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
