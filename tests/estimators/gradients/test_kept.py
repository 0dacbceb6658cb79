"""What does not fit into memory is made again, and a pass that was broken off is not taken for a whole one."""

from collections.abc import Iterator

from estimators.gradients.kept import Kept


def test_what_is_larger_than_the_budget_is_made_again() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        made.append(1)
        yield from range(3)

    items = Kept(make, size=11, budget=10)
    assert [list(items), list(items)] == [[0, 1, 2], [0, 1, 2]]
    assert len(made) == 2


def test_a_pass_that_was_broken_off_is_begun_again() -> None:
    items = Kept(lambda: iter("abc"), size=3, budget=10)
    assert next(iter(items)) == "a"
    assert list(items) == list("abc")
