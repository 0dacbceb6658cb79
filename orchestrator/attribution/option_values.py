"""Which values of one option of an estimator to look at: those that are asked for, or a range around its default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from estimators.contract import Estimator
from estimators.evidence import Evidence
from orchestrator.config.validation_errors import one_line
from workers.errors import ConfigError, near

HALF_DECADES = range(-4, 5)
"""Of a number with decimals: two decades to both sides of the default, by half decades."""
DOUBLINGS = range(-2, 3)
"""Of a whole number: from a quarter to four times the default."""


def refuse_other_than_numbers(kind: type[Estimator], option: str) -> None:
    """Raise ConfigError for an option that an estimator does not have, or that no number can be given for."""
    if option not in kind.model_fields:
        raise ConfigError(f"estimator {kind.name!r} has no option {option!r}: {near(option, list(kind.model_fields))}")
    if not _kinds(kind.model_fields[option].annotation) & {int, float}:
        able = [name for name, field in kind.model_fields.items() if _kinds(field.annotation) & {int, float}]
        raise ConfigError(
            f"option {option!r} of {kind.name} is not numeric; those that are: {', '.join(able) or 'none'}"
        )


def around_default(options: Estimator, option: str, evidence: Evidence) -> tuple[float, ...]:
    """Return a range of numbers around an option's default, ascending, all of which the estimator takes.

    Raises ConfigError where the default is no number, and nothing tells of which size it is.
    """
    size = options.size_of(option, evidence)
    if not size:
        raise ConfigError(
            f"option {option!r} of {options.name} is {getattr(options, option)!r} by default, and a range around that is not "
            "known: give values"
        )
    whole = float not in _kinds(type(options).model_fields[option].annotation)
    found: Iterable[float] = (
        {round(size * 2.0**k) for k in DOUBLINGS} if whole else (size * 10 ** (k / 2) for k in HALF_DECADES)
    )
    return tuple(sorted(number for number in found if _taken(options, option, number)))


def with_value(options: Estimator, option: str, value: Any) -> Estimator:
    """Return the estimator with another value of one option. Raises ConfigError, one line, for one that it does not take."""
    given = {**options.model_dump(exclude_unset=True), option: value}
    try:
        return type(options).model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"estimator {options.name}: {one_line(error, given, type(options))}") from error


def numbers(values: Sequence[Any], option: str) -> tuple[float, ...]:
    """Return values that were asked for, ascending. Raises ConfigError for what is no number, or is there twice."""
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"values of {option}: expected numbers, such as 0.01,0.1,1, found {value!r}")
        if value in values[:place]:
            raise ConfigError(f"values of {option}: {value!r} is there twice")
    if not values:
        raise ConfigError(f"values of {option}: expected at least one number, such as 0.01,0.1,1")
    return tuple(sorted(values))


def _taken(options: Estimator, option: str, value: Any) -> bool:
    try:
        with_value(options, option, value)
    except ConfigError:
        return False
    return True


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that a value of an option may have: those of a union one by one."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return {found for one in get_args(annotation) for found in _kinds(one)}
    return {annotation} if origin is None else {origin}
