"""How long a sweep has been worked on, by a clock that nobody can set: sessions are added up, pauses between them are not."""

from __future__ import annotations

from time import monotonic


class WorkClock:
    """Runs from when it is made, on from the seconds that former sessions took."""

    def __init__(self, before: float):
        self._before, self._started = before, monotonic()

    def seconds(self) -> float:
        """Return the seconds of work up to this moment."""
        return self._before + monotonic() - self._started
