"""`models: [1, 2, 5]` of an estimator: an estimator of each number of models, named by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def each_number_of_models(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections by label, those with a list of `models` once for every entry: `trak` as `trak_1`, `trak_2`, `trak_5`.

    Raises ValueError for a list that is no list of distinct numbers, and for a label that is then there twice.
    """
    made: dict[str, Any] = {}
    for label, options in sections.items():
        given = options.get("models") if isinstance(options, Mapping) else None
        if not isinstance(given, list | tuple):
            parts = {label: options}
        else:
            _refuse(label, given)
            parts = {f"{label}_{count}": {"estimator": label, **options, "models": count} for count in given}
        for name, part in parts.items():
            if name in made:
                raise ValueError(f"{name!r} is there twice: once by its own name, once by `models` of {label!r}")
            made[name] = part
    return made


def _refuse(label: str, given: list[Any] | tuple[Any, ...]) -> None:
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in given)
    if not given or not whole or len(set(given)) < len(given):
        raise ValueError(f"{label}.models: expected distinct whole numbers of at least 1, found {list(given)}")
