"""When a sweep knows enough: criteria on its progress, composed with `and` and `or`, written as a line of text.

    standard_error < 0.02 or (runs >= 5000 and hours >= 1)
    standard_error < 0.02 for 95%
    rank_stability > 0.95 over the last 5
    lds_interval < 0.05

`and` binds tighter than `or`. `parse(str(criterion))` is the criterion again.
"""

from __future__ import annotations

import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.errors import ConfigError, near


@dataclass(frozen=True)
class Progress:
    """What a sweep knows at one evaluation."""

    runs: int = 0
    """Finished runs."""
    hours: float = 0.0
    """Hours since the sweep began, over all its sessions."""
    standard_errors: NDArray[np.floating] | None = None
    """(n,) standard errors of the values watched; None while unknown, NaN for an example that has none yet."""
    history: tuple[NDArray[np.floating], ...] = ()
    """The values watched, (n,) each, at this evaluation (last) and the ones before it."""
    lds_interval: float = math.nan
    """Width of the interval of the LDS; NaN while unknown."""


class Verdict(NamedTuple):
    """What a criterion says of a progress."""

    met: bool
    value: float
    """The number that is compared (a point of the criterion's curve); NaN while unknown, and then never met."""


class Criterion(ABC):
    """Something that a progress meets or does not. Compose with & and |."""

    @abstractmethod
    def evaluate(self, progress: Progress) -> Verdict:
        """Return whether the progress meets it, and the number it looks at; 1 or 0 for a composed criterion."""

    @abstractmethod
    def comparisons(self) -> tuple[Comparison, ...]:
        """Return the comparisons it is composed of, from left to right: one curve each."""

    def looks_back(self) -> int:
        """Return how many evaluations before the newest one it needs in a progress's history."""
        backs = [one.argument for one in self.comparisons() if one.quantity == "rank_stability" and one.argument]
        return int(max(backs, default=0))

    def __and__(self, other: Criterion) -> Criterion:
        return AllOf((*_parts(self, AllOf), *_parts(other, AllOf)))

    def __or__(self, other: Criterion) -> Criterion:
        return AnyOf((*_parts(self, AnyOf), *_parts(other, AnyOf)))


@dataclass(frozen=True)
class Comparison(Criterion):
    """One quantity against a threshold."""

    quantity: str
    sign: str
    threshold: float
    argument: float | None = None
    """standard_error: the percentage of the values that it is about (None: all); rank_stability: the evaluations looked back."""

    def evaluate(self, progress: Progress) -> Verdict:
        """Compare the quantity, as it is now, with the threshold."""
        value = QUANTITIES[self.quantity].of(progress, self.argument)
        return Verdict(bool(SIGNS[self.sign](value, self.threshold)), value)

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return itself."""
        return (self,)

    def __str__(self) -> str:
        words = f"{self.quantity} {self.sign} {self.threshold!r}"
        return words if self.argument is None else words + QUANTITIES[self.quantity].tail.format(self.argument)


@dataclass(frozen=True)
class _Composed(Criterion):
    parts: tuple[Criterion, ...]

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return those of all parts."""
        return tuple(one for part in self.parts for one in part.comparisons())


@dataclass(frozen=True)
class AllOf(_Composed):
    """Met when all its parts are."""

    def evaluate(self, progress: Progress) -> Verdict:
        """Ask every part."""
        met = all(part.evaluate(progress).met for part in self.parts)
        return Verdict(met, float(met))

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


@dataclass(frozen=True)
class AnyOf(_Composed):
    """Met when one of its parts is."""

    def evaluate(self, progress: Progress) -> Verdict:
        """Ask every part."""
        met = any(part.evaluate(progress).met for part in self.parts)
        return Verdict(met, float(met))

    def __str__(self) -> str:
        return " or ".join(str(part) for part in self.parts)


def _parts(criterion: Criterion, kind: type[_Composed]) -> tuple[Criterion, ...]:
    return criterion.parts if isinstance(criterion, kind) else (criterion,)


@dataclass(frozen=True)
class _Quantity:
    """A number read off a progress, and how it may be written."""

    of: Callable[[Progress, float | None], float]
    signs: tuple[str, ...]
    """Comparisons that make sense: those that more runs lead to."""
    tail: str = ""
    """How the argument is written behind the threshold."""


def _largest_error(progress: Progress, percent: float | None) -> float:
    """Return what this percentage of the standard errors do not exceed (None: the largest); unknown ones count as infinite."""
    errors = progress.standard_errors
    if errors is None or not len(errors):
        return math.nan
    ordered = np.sort(np.where(np.isnan(errors), np.inf, errors))
    # Rounded before it is rounded up, since 55% of 100 must not become 56 by a rounding error.
    place = math.ceil(round((100 if percent is None else percent) / 100 * len(ordered), 9))
    found = float(ordered[max(place, 1) - 1])
    return found if math.isfinite(found) else math.nan


def _rank_stability(progress: Progress, back: float | None) -> float:
    """Return the smallest Spearman correlation of the newest values with those of the `back` evaluations before."""
    from estimators.scores.spearman import spearman  # to read a criterion must not import the estimators

    count = int(back or 0)
    if len(progress.history) <= count:
        return math.nan
    *earlier, newest = progress.history[-1 - count :]
    columns = np.stack(earlier, axis=1)
    return float(spearman(columns, np.repeat(np.asarray(newest)[:, None], count, axis=1)).min())


SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
QUANTITIES = {
    "standard_error": _Quantity(_largest_error, ("<", "<="), " for {!r}%"),
    "rank_stability": _Quantity(_rank_stability, (">", ">="), " over the last {:.0f}"),
    "lds_interval": _Quantity(lambda progress, _: float(progress.lds_interval), ("<", "<=")),
    "runs": _Quantity(lambda progress, _: float(progress.runs), (">", ">=")),
    "hours": _Quantity(lambda progress, _: float(progress.hours), (">", ">=")),
}


def parse(text: str, where: str = "stop") -> Criterion:
    """Return the criterion that `text` describes. Raises ConfigError, naming `where` and the place in it, for any other."""
    reader = _Reader(text, where, [*_WORD.finditer(text)])
    found = reader.either()
    if reader.words:
        raise reader.error("expected `and`, `or` or the end")
    return found


_WORD = re.compile(r"[<>]=?|[()%]|[^\s<>()%]+")


@dataclass
class _Reader:
    """Recursive descent over the words of a text."""

    text: str
    where: str
    words: list[re.Match[str]] = field(default_factory=list)

    def either(self) -> Criterion:
        found = self.both()
        while self.take("or"):
            found = found | self.both()
        return found

    def both(self) -> Criterion:
        found = self.one()
        while self.take("and"):
            found = found & self.one()
        return found

    def one(self) -> Criterion:
        if self.take("("):
            found = self.either()
            if not self.take(")"):
                raise self.error("expected `)`")
            return found
        return self.comparison()

    def comparison(self) -> Comparison:
        if self.next() not in QUANTITIES:
            raise self.error(f"expected a quantity ({near(self.next(), list(QUANTITIES))})")
        name = self.words.pop(0).group()
        quantity = QUANTITIES[name]
        if self.next() not in quantity.signs:
            raise self.error(f"expected {' or '.join(quantity.signs)} after {name}")
        sign = self.words.pop(0).group()
        threshold = self.number()
        return Comparison(name, sign, threshold, self.argument(name))

    def argument(self, name: str) -> float | None:
        if name == "standard_error" and self.take("for"):
            percent = self.number("a percentage above 0, at most 100", lambda value: 0 < value <= 100)
            if not self.take("%"):
                raise self.error("expected `%`")
            return percent
        if name == "rank_stability":
            if not self.take("over"):
                raise self.error("expected `over the last K`")
            self.take("the")
            self.take("last")
            return self.number("a whole number of evaluations, 1 or more", lambda value: value >= 1 and value % 1 == 0)
        return None

    def number(self, what: str = "a number", fits: Callable[[float], bool] = math.isfinite) -> float:
        try:
            value = float(self.next())
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and fits(value)):
            raise self.error(f"expected {what}")
        self.words.pop(0)
        return value

    def next(self) -> str:
        return self.words[0].group() if self.words else ""

    def take(self, word: str) -> bool:
        if self.next() != word:
            return False
        self.words.pop(0)
        return True

    def error(self, expected: str) -> ConfigError:
        found = f"{self.next()!r} at character {self.words[0].start() + 1}" if self.words else "the end"
        return ConfigError(f"{self.where}: {expected}, found {found} of {self.text!r}")
