"""The arguments of built-in tasks: annotations are the rule, with descriptions for users; a breach is one ConfigError."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, validate_call

from workers.data.tokens import LEAST
from workers.errors import ConfigError
from workers.recipe import Recipe

P = ParamSpec("P")
R = TypeVar("R")

Fraction = Annotated[float, Field(ge=0, lt=1)]
"""A share of a whole, in [0, 1)."""
Count = Annotated[PositiveInt, Field(description="number of training examples")]
"""The argument `n`."""
QueryCount = Annotated[PositiveInt, Field(description="number of queries")]
"""The argument `t`."""
SplitSeed = Annotated[
    NonNegativeInt | None,
    Field(
        description="shuffles the examples before the first n train and the next t are queries; null keeps their order"
    ),
]
TestFraction = Annotated[
    Fraction, Field(description="where `t` is null: the fraction of the examples that are queries")
]
Dropout = Annotated[Fraction, Field(description="dropout rate")]
FlipLabels = Annotated[Fraction, Field(description="fraction of the training labels that are changed to another class")]
FlipSeed = Annotated[NonNegativeInt, Field(description="draws which labels are changed, and to what")]
ImagesPath = Annotated[
    str | Path | None,
    Field(description="an .npz, or a folder of torchvision's; null is torchvision's copy in ~/.cache/counterfactory"),
]
Download = Annotated[bool, Field(description="fetch the data set where it is not there")]
TablePath = Annotated[str | Path, Field(description="a CSV, TSV or Parquet file")]
Target = Annotated[str | None, Field(description="the column to predict; null is the last one")]
Drop = Annotated[list[str] | None, Field(description="columns to leave out")]
Group = Annotated[
    str | None, Field(description="a column to group examples by (for leave_group_out); it is no feature")
]
Vocabulary = Annotated[
    int, Field(ge=LEAST, description="tokens of a trained tokenizer, at most; every byte is one, whatever the texts")
]
Width = Annotated[PositiveInt, Field(description="the transformer's width, a multiple of `heads`")]
Heads = Annotated[PositiveInt, Field(description="attention heads of a layer")]
Layers = Annotated[PositiveInt, Field(description="layers of the transformer")]
RecipeArgument = Annotated[
    dict[str, Any] | Recipe | None,
    Field(description="how to train: fields in place of the task's own, such as {epochs: 5}"),
]
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


def check_heads(width: int, heads: int) -> None:
    """Raise ConfigError unless the heads can share the width."""
    if width % heads:
        raise ConfigError(f"width = {width} must be a multiple of heads = {heads}")


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
