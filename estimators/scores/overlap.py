"""No method is scored on a subset it was fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workers.errors import DataError

_BLOCK = 1 << 26


def count_overlap(fitted: NDArray[np.bool_], scored: NDArray[np.bool_]) -> tuple[int, int]:
    """Return how many different subsets of `scored` (s, n) are among `fitted` (m, n), and how many there are.

    Exact (packed rows are compared, not only hashed) and linear in m n; `fitted` is read a block of rows at a time, so
    anything that slices like an array (a mapped file, a Zarr array) will do.

    >>> import numpy as np
    >>> from estimators.scores import count_overlap
    >>> fitted = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    >>> scored = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)  # the first one twice
    >>> count_overlap(fitted, scored)
    (1, 2)
    """
    if fitted.shape[1:] != scored.shape[1:]:
        raise DataError(
            f"the fitted masks cover {fitted.shape[1]} examples and the scoring masks {scored.shape[1]},"
            " expected the same"
        )
    distinct = set(packed(scored))
    left = set(distinct)
    step = max(1, _BLOCK // max(1, fitted.shape[1]))
    for start in range(0, len(fitted), step):
        left.difference_update(packed(np.asarray(fitted[start : start + step])))
    return len(distinct) - len(left), len(distinct)


def refuse_overlap(fitted: NDArray[np.bool_], scored: NDArray[np.bool_]) -> None:
    """Raise DataError, with their number, if any subset of `scored` (s, n) was fitted on (`fitted`, (m, n)).

    >>> import numpy as np
    >>> from estimators.scores import refuse_overlap
    >>> fitted = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    >>> refuse_overlap(fitted, ~fitted)
    >>> refuse_overlap(fitted, fitted[:1])
    Traceback (most recent call last):
    workers.errors.DataError: 1 of the 1 scoring subsets were also fitted on: score on a design that the method was not fitted on
    """
    shared, distinct = count_overlap(fitted, scored)
    if shared:
        raise DataError(
            f"{shared} of the {distinct} scoring subsets were also fitted on:"
            " score on a design that the method was not fitted on"
        )


def packed(masks: NDArray[np.bool_]) -> list[bytes]:
    """Return every row as bytes, one bit an example."""
    return [row.tobytes() for row in np.packbits(masks, axis=1)]
