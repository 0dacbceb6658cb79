"""The designs: which subsets are trained on, and what for. One file a family."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.designs.again import Again
from orchestrator.designs.base import Context, Design
from orchestrator.designs.explicit import Explicit
from orchestrator.designs.full import Full
from orchestrator.designs.imported import Imported
from orchestrator.designs.leave_out import LeaveGroupOut, LeaveOneOut
from orchestrator.designs.permutations import Permutations
from orchestrator.designs.random_subsets import Bernoulli, Subsets

AnyDesign = Annotated[
    Subsets | Bernoulli | LeaveOneOut | LeaveGroupOut | Permutations | Full | Explicit | Again | Imported,
    Field(discriminator="kind"),
]
"""What a configuration may name under `designs`, chosen by `kind`."""

__all__ = ["AnyDesign", "Context", "Design"]
