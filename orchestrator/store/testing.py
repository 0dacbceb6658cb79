"""Checks that every run store must pass, for those who put it on another storage: `check_store(make)` in a test of their own.

Each check can be called alone and raises AssertionError with one line that says what is wrong. `make` returns a new, empty
`Storage` each time; docs/store.md says what is checked.

    from orchestrator.store.testing import Folder, check_store

    def test_my_store_keeps_its_promises(tmp_path):
        numbers = itertools.count()
        check_store(lambda: Folder(tmp_path / str(next(numbers)), MyStore))
"""

from __future__ import annotations

from orchestrator.store.conformance.accidents import check_crashes, check_damage
from orchestrator.store.conformance.promises import (
    check_checkpoints,
    check_commits,
    check_creation,
    check_failures,
    check_forgetting,
    check_growth,
    check_one_writer,
    check_parts,
    check_plan,
)
from orchestrator.store.conformance.reading import check_copies, check_reads_of_damage, check_verification
from orchestrator.store.conformance.refusals import (
    check_commits_that_do_not_belong,
    check_names,
    check_plans_that_do_not_fit,
    check_refusals,
    check_rows_that_are_not_there,
)
from orchestrator.store.conformance.sessions import check_clock, check_readers, check_snapshots
from orchestrator.store.conformance.storage import Contents, Crash, Folder, Storage
from orchestrator.store.conformance.trial import Make, Shape, Trial

__all__ = [
    "ACCIDENTS",
    "PROMISES",
    "SHAPES",
    "Contents",
    "Crash",
    "Folder",
    "Make",
    "Shape",
    "Storage",
    "Trial",
    "check_checkpoints",
    "check_clock",
    "check_commits",
    "check_commits_that_do_not_belong",
    "check_copies",
    "check_crashes",
    "check_creation",
    "check_damage",
    "check_failures",
    "check_forgetting",
    "check_growth",
    "check_names",
    "check_one_writer",
    "check_parts",
    "check_plan",
    "check_plans_that_do_not_fit",
    "check_readers",
    "check_reads_of_damage",
    "check_refusals",
    "check_rows_that_are_not_there",
    "check_snapshots",
    "check_store",
    "check_verification",
]

SHAPES = tuple(Shape(*size, reopen) for size in ((10, 4), (3, 1), (3, 8), (8, 4)) for reopen in (False, True))
"""Packs that do not divide the runs, packs of one, one pack, whole packs."""

PROMISES = (
    check_creation,
    check_plan,
    check_commits,
    check_parts,
    check_failures,
    check_forgetting,
    check_checkpoints,
    check_growth,
    check_one_writer,
)
"""What is kept for every shape of design, in one session and with the store opened anew before every step."""
ACCIDENTS = (
    check_damage,
    check_reads_of_damage,
    check_verification,
    check_crashes,
    check_refusals,
    check_names,
    check_rows_that_are_not_there,
    check_commits_that_do_not_belong,
    check_plans_that_do_not_fit,
    check_copies,
    check_readers,
    check_snapshots,
    check_clock,
)
"""What is kept whatever happens to the storage, is asked of the store or is open beside it."""


def check_store(make: Make) -> None:
    """Run all checks: the promises over all shapes, then what may happen to the storage."""
    for promise in PROMISES:
        for shape in SHAPES:
            promise(make, shape)
    for accident in ACCIDENTS:
        accident(make)
