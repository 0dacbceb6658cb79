"""Turn runs or gradients into attributions, and score attributions against held-out runs.

What a package of one's own needs is here: `from estimators import Attribution, Estimator, Evidence`. Each name is imported when
it is asked for: who only reads the options of an estimator does not wait for a compiler or for scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.lazy_exports import exports

if TYPE_CHECKING:
    from estimators.contract import Attribution, Estimator, Need
    from estimators.evidence import Evidence, Reference, Runs
    from estimators.lasso.regressor import Datamodel

__all__ = ["Attribution", "Datamodel", "Estimator", "Evidence", "Need", "Reference", "Runs"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Attribution": "estimators.contract",
        "Datamodel": "estimators.lasso.regressor",
        "Estimator": "estimators.contract",
        "Evidence": "estimators.evidence",
        "Need": "estimators.contract",
        "Reference": "estimators.evidence",
        "Runs": "estimators.evidence",
    },
)
