"""What installed packages offer is read once a process, whatever the group."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from workers import plugins


def test_each_group_has_its_own_and_packages_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = EntryPoint("mine", "package:Mine", "counterfactory.estimators")
    theirs = EntryPoint("other", "package:other", "console_scripts")
    reads: list[int] = []

    def read() -> EntryPoints:
        reads.append(1)
        return EntryPoints([ours, theirs])

    monkeypatch.setattr(importlib.metadata, "entry_points", read)
    plugins._of_all_packages.cache_clear()
    try:
        assert plugins.offered("counterfactory.estimators") == (ours,)
        assert plugins.offered("counterfactory.metrics") == ()
        assert len(reads) == 1
    finally:
        plugins._of_all_packages.cache_clear()
