"""What is called damage: something in the store that is not what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

What = Literal["masks", "outputs", "checkpoint", "ledger"]
REMEDY = "run `counterfactory verify` on the sweep, then `counterfactory run` to put it right"


@dataclass(frozen=True)
class Damage:
    """Something in the store that is not what was written."""

    design: str
    pack: int
    rows: tuple[int, ...]
    """The rows it touches."""
    path: Path
    """The file at fault; where the outputs of several measures disagree with their common hash, the first of them."""
    what: What
    """"masks" is the plan (masks, seeds, subsets, repeats): `write_plan` it again from the configuration. Of anything
    else, `forget` the rows and train them again."""
    reason: str
    """What is wrong with the file: "missing", "damaged: ..."."""

    def __str__(self) -> str:
        """Say it in a line, with the remedy."""
        return f"{self.path} is {self.reason}: {REMEDY}"
