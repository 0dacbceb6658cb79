"""The table of how an LDS goes with an option: a row a value, as a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.store.durable import write_atomically
from orchestrator.store.side_files import read_file


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One value of the option, and how the estimator with it was judged. The fields are the columns, in their order."""

    option: str
    setting: str
    """The value, as JSON has it."""
    number: float
    """The value; NaN for one that is no number, such as a default `auto`."""
    default: bool = False
    """Whether it is the option's default, or what the configuration gives."""
    lds: float = math.nan
    """Linear datamodeling score; NaN where nothing could be computed."""
    low: float = math.nan
    high: float = math.nan
    """Ends of its 95% interval."""
    ceiling: float = math.nan
    """What the noise of training lets anyone reach; NaN where that is unknown."""
    ceiling_low: float = math.nan
    ceiling_high: float = math.nan
    """Ends of its 95% interval."""
    subsets: int = 0
    """Held-out subsets that judged it."""
    measure: str
    design: str
    """The design whose runs judged it."""
    seconds: float
    """Time it took to compute."""
    error: str = ""
    """Why nothing could be computed."""
    made_of: str
    """Hash of the other options, the runs and the measure."""

    @property
    def shown(self) -> str:
        """The value as a person reads it: a number to four digits."""
        return f"{self.number:.4g}" if math.isfinite(self.number) else self.setting.strip('"')


_READ: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "float": float,
    "int": int,
    "bool": lambda cell: cell == "True",
}
"""Type of a field -> how a cell of its column is read."""


def write_table(path: Path, rows: Iterable[Looked]) -> None:
    """Write the rows at once and durably."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [one.name for one in fields(Looked)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(path, buffer.getvalue().encode())


def read_table(path: Path) -> tuple[Looked, ...]:
    """Return the rows of a table, none where there is no file. Raises StoreError where it is damaged."""
    return read_file(path, "delete it, and `counterfactory sensitivity` writes it anew", _parsed) or ()


def _parsed(content: bytes) -> tuple[Looked, ...]:
    reader = csv.DictReader(io.StringIO(content.decode()), strict=True)
    return tuple(Looked(**{one.name: _READ[str(one.type)](row[one.name]) for one in fields(Looked)}) for row in reader)
