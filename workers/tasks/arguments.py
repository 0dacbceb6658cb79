"""Checking the arguments of built-in tasks: annotations are the rule, and a breach is one ConfigError."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import Field, ValidationError, validate_call

from workers.errors import ConfigError
from workers.recipe import Recipe

P = ParamSpec("P")
R = TypeVar("R")

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A share of a whole, in [0, 1)."""
RecipeArgument = dict[str, Any] | Recipe | None
"""The argument `recipe`: fields to override, a whole recipe, or nothing."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Validate a task's arguments against their annotations; raise ConfigError naming the argument at fault."""
    validated: Callable[P, R] = validate_call(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            raise ConfigError(f"task.arguments.{describe(error)}") from error

    return call


def override(default: Recipe, recipe: RecipeArgument) -> Recipe:
    """Return the default recipe with the given fields in place of its own. Raises ConfigError for a bad field."""
    if recipe is None or isinstance(recipe, Recipe):
        return recipe or default
    try:
        return Recipe.model_validate({**default.model_dump(), **recipe})
    except ValidationError as error:
        raise ConfigError(f"task.arguments.recipe: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Return the first complaint of a validation error as one line, and how many more there are."""
    first, *more = error.errors(include_url=False)
    place = ".".join(str(part) for part in first["loc"])
    others = f" (and {len(more)} more)" if more else ""
    return f"{place}: {first['msg']}, found {first['input']!r}{others}" if place else f"{first['msg']}{others}"
