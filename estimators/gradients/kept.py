"""What is gone through several times: kept after the first time where it fits into memory, else made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Kept(Generic[Item]):
    """The items that `make` yields, the same each time it is called, of `size` bytes in all; kept where that is in `budget`.

    >>> from estimators.gradients.kept import Kept
    >>> calls = []
    >>> def make():
    ...     calls.append("made")
    ...     yield from "ab"
    >>> items = Kept(make, size=2, budget=10)
    >>> list(items), list(items), calls
    (['a', 'b'], ['a', 'b'], ['made'])
    """

    def __init__(self, make: Callable[[], Iterator[Item]], size: int, budget: int):
        self._make, self._fits = make, size <= budget
        self._items: list[Item] | None = None

    def __iter__(self) -> Iterator[Item]:
        if self._items is not None:
            yield from self._items
            return
        seen: list[Item] = []
        for item in self._make():
            if self._fits:
                seen.append(item)
            yield item
        if self._fits:
            self._items = seen
