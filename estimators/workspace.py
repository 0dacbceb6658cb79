"""Where an estimator does long work piece by piece: here one piece after the other, elsewhere on many machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from workers.machine import total_bytes

Arrays = Mapping[str, NDArray[Any]]
"""A finished piece: arrays by name."""
Shared = TypeVar("Shared")
Item = TypeVar("Item")


class Workspace:
    """In this process, finished pieces in memory. The orchestrator's keeps them in the sweep's folder, so that work resumes."""

    distributed: bool = False
    """Whether pieces are done on several machines at once."""
    threads: int | None = None
    """Cores that one piece may use; None takes what its own options say."""

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    @property
    def memory(self) -> int:
        """Bytes of memory that one piece may take when nothing else is said: half of this machine's."""
        return total_bytes() // 2

    def map(
        self, work: Callable[[Shared, Item], Arrays], shared: Shared, items: Sequence[Item]
    ) -> Iterator[tuple[Item, Arrays]]:
        """Yield every item with work(shared, item), in any order. `work` is a module's function, the rest can be pickled."""
        for item in items:
            yield item, work(shared, item)

    def keep(self, name: str, arrays: Arrays) -> None:
        """Keep a finished piece under a name."""
        self._kept[name] = arrays

    def kept(self, name: str) -> Arrays | None:
        """Return a piece that was kept, by this call or by one that was interrupted."""
        return self._kept.get(name)

    def say(self, line: str) -> None:
        """Tell the user something before long work; nobody listens here."""
