"""Turn runs or gradients into attributions, and score attributions against held-out runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from estimators.lasso.regressor import Datamodel

__all__ = ["Datamodel"]


def __getattr__(name: str) -> object:
    """Import `Datamodel` when it is asked for: its compiler and scikit-learn take seconds that other users should not pay."""
    if name == "Datamodel":
        from estimators.lasso.regressor import Datamodel

        return Datamodel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
