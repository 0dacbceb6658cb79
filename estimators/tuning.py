"""How options were chosen among values by fitting runs: what was tried, what it came to, in words and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


def worded(values: Mapping[str, Any]) -> str:
    """Return options and their values in words.

    >>> from estimators.tuning import worded
    >>> worded({"damping": 0.01, "solver": "cg"})
    'damping = 0.01, solver = cg'
    """
    return ", ".join(
        f"{option} = {value:g}" if _number(value) else f"{option} = {value}" for option, value in values.items()
    )


@dataclass(frozen=True)
class Tried:
    """One combination of values, and how well it agreed with the runs that choose."""

    values: Mapping[str, Any]
    lds: float
    """Linear datamodeling score; NaN where nothing could be computed with these values."""
    low: float
    high: float
    """Ends of its 95% interval."""
    seconds: float
    """Time it took to compute and to judge."""
    why: str = ""
    """Why nothing could be computed with these values; empty where it could."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        numbers = {name: _known(getattr(self, name)) for name in ("lds", "low", "high")}
        return {"values": dict(self.values), **numbers, "seconds": self.seconds, "why": self.why}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Tried:
        """Return what `to_json` told."""
        numbers = {name: math.nan if told[name] is None else told[name] for name in ("lds", "low", "high")}
        return cls(told["values"], **numbers, seconds=told["seconds"], why=told["why"])


@dataclass(frozen=True)
class Tuning:
    """Which values were chosen, over which grid, on which runs, and what it cost."""

    chosen: Mapping[str, Any]
    tried: tuple[Tried, ...]
    """Every combination, in the order of the grid."""
    design: str
    """The fitting design whose runs chose."""
    subsets: int
    """How many of its subsets chose."""
    held_out: bool
    """Whether the estimator is fitted on the same design: then it was fitted on its other subsets to be judged by these."""
    told_apart: bool
    """Whether the 95% interval of the difference between the best and the worst leaves 0 out."""
    seconds: float
    """Time of everything that was tried."""

    @property
    def best(self) -> Tried:
        """What was chosen, as it was tried."""
        return next(one for one in self.tried if dict(one.values) == dict(self.chosen))

    @property
    def flat(self) -> bool:
        """Whether all values have the same score, so that nothing was chosen by it."""
        scores = {one.lds for one in self.tried if not one.why}
        return len(scores) < 2

    @property
    def at_the_end(self) -> Mapping[str, str]:
        """The chosen numbers that are the smallest or the largest of their grid, each with which of the two."""
        return dict(self._ends())

    def _ends(self) -> Iterator[tuple[str, str]]:
        for option, value in self.chosen.items():
            numbers = {one.values[option] for one in self.tried if _number(one.values[option])}
            if _number(value) and len(numbers) > 1 and value in (min(numbers), max(numbers)):
                yield option, "smallest" if value == min(numbers) else "largest"

    @property
    def sentence(self) -> str:
        """What was chosen and how sure that is, in a line."""
        best, count = self.best, len(self.tried)
        chosen = f"tuned: {worded(self.chosen)}, of {count} values by {self.subsets:,} subsets of {self.design}"
        if self.flat:
            said = [
                f"nothing was chosen by them, for all values have the same LDS there ({best.lds:.3f}): it is the first one"
            ]
        else:
            scores = [one.lds for one in self.tried if not one.why]
            said = [f"LDS there {best.lds:.3f} ({best.low:.3f} to {best.high:.3f}), {min(scores):.3f} at worst"]
            said += [] if self.told_apart else ["the best cannot be told from the worst"]
            said += [f"{option} is the {end} of its grid: others may be better" for option, end in self._ends()]
        failed = [one for one in self.tried if one.why]
        said += [f"{len(failed)} left out, the first {worded(failed[0].values)}: {failed[0].why}"] if failed else []
        return "; ".join([chosen, *said])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        plain = {name: getattr(self, name) for name in ("design", "subsets", "held_out", "told_apart", "seconds")}
        told = {"chosen": dict(self.chosen), "tried": [one.to_json() for one in self.tried], **plain}
        return {**told, "sentence": self.sentence}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Tuning:
        """Return what `to_json` told."""
        plain = (told[name] for name in ("design", "subsets", "held_out", "told_apart", "seconds"))
        return cls(told["chosen"], tuple(Tried.from_json(one) for one in told["tried"]), *plain)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
