"""What an option takes, in words, from the model that validates it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, PositiveInt, create_model

from orchestrator.catalog.entry import Option
from orchestrator.catalog.options import options_of


def option(annotation: Any, default: Any = ...) -> Option:
    (made,) = options_of(create_model("Model", key=(annotation, default)))
    return made


class Nested(BaseModel):
    inside: int


@pytest.mark.parametrize(
    ("annotation", "accepts"),
    [
        (int, "integer"),
        (PositiveInt, "integer of more than 0"),
        (Annotated[float, Field(ge=0, lt=1)], "number of at least 0 and less than 1"),
        (Annotated[int, Field(ge=1)] | None, "integer of at least 1, or null"),
        (Annotated[int, Field(gt=0)] | Literal["auto"] | None, "integer of more than 0, or `auto`, or null"),
        (Literal["a", "b"], "`a` or `b`"),
        (Literal[1], "`1`"),
        (bool, "true or false"),
        (str, "text"),
        (list[str], "list of text"),
        (tuple[float, float], "list of 2 number"),
        (tuple[int, ...] | Literal["last"], "list of integer, or `last`"),
        (dict[str, int] | None, "mapping, or null"),
        (Nested, "mapping"),
        (int | float, "integer, or number"),
        (Any, "anything"),
    ],
)
def test_what_is_accepted_is_said(annotation: Any, accepts: str) -> None:
    assert option(annotation).accepts == accepts


@pytest.mark.parametrize(
    ("default", "said"),
    [(..., "required"), (None, "null"), (True, "true"), (0.5, "0.5"), ("auto", "auto"), ([1, 2], "[1, 2]")],
)
def test_the_default_is_as_a_configuration_has_it(default: Any, said: str) -> None:
    assert option(Any, default).default == said


def test_a_description_is_found_where_null_is_also_taken() -> None:
    count = Annotated[int, Field(description="how many")]
    assert option(count).about == option(count | None, None).about == "how many"
    assert option(int).about == ""


def test_options_keep_their_order_and_leave_out_what_is_not_for_users() -> None:
    model = create_model("Model", kind=(str, ...), b=(int, 1), a=(int, 2))
    assert [one.name for one in options_of(model, without=("kind",))] == ["b", "a"]
