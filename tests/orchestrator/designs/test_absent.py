"""A design of a kind that is not there: what it keeps, what it says of itself, and how it refuses to be drawn."""

import pytest

from orchestrator.designs.absent import Absent
from orchestrator.designs.base import Context
from workers.errors import ConfigError

CONTEXT = Context("fit", 0, 5)


def absent() -> Absent:
    return Absent.model_validate({"kind": "halves", "pairs": 3, "seeds": 2})


@pytest.mark.parametrize(
    ("fault", "why"), [("", "is not installed here"), ("no module x", r"cannot be loaded here \(no module x\)")]
)
def test_it_is_not_drawn_and_says_why(fault: str, why: str) -> None:
    design = absent().for_fault(fault)
    assert design.fault == fault
    for draw in (lambda: design.count(CONTEXT), lambda: design.mask(0, CONTEXT)):
        with pytest.raises(ConfigError, match=f"^designs.fit.kind: 'halves' {why}, so it cannot be drawn$"):
            draw()


def test_nothing_is_known_of_its_kind_unless_told() -> None:
    design = absent()
    assert (design.fault, design.follows, design.serves, design.growth_keys) == ("", None, frozenset(), ())


def test_it_has_what_its_kind_said_of_itself() -> None:
    design = absent().for_fault("broken").told(["subsets", "full"], "other", ["pairs"])
    assert isinstance(design, Absent)
    assert (type(design).__name__, type(design).__module__) == ("Absent", Absent.__module__)
    assert design.serves == frozenset({"subsets", "full"})
    assert (design.follows, design.growth_keys, design.fault) == ("other", ("pairs",), "broken")
    assert design.model_dump() == absent().model_dump(), "its keys are kept as they are"
    assert "pairs" not in design.deciding()
    assert (absent().serves, Absent.growth_keys) == (frozenset(), ()), "of others nothing was said"
