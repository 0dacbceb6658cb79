"""What installed packages offer is read once a process, whatever the group; what cannot be loaded is one line."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from workers import plugins
from workers.errors import ConfigError, PluginError


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


def nothing(found: object) -> None:
    """Take whatever it is."""


def refusing(found: object) -> None:
    raise ConfigError(f"expected a number, found {found!r}")


@pytest.mark.parametrize(
    ("source", "check", "said"),
    [
        ("import no_such_package", nothing, "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:", nothing, "SyntaxError: invalid syntax"),
        ("raise RuntimeError('first\\nsecond')", nothing, "RuntimeError: first"),
        ("import sys; sys.exit(3)", nothing, "SystemExit: 3"),
        ("", nothing, "AttributeError: module 'offering_methods' has no attribute 'Mine'"),
        ("Mine = 'text'", refusing, "expected a number, found 'text'"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, check: Callable[[object], None], said: str
) -> None:
    (tmp_path / "offering_methods.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("mine", "offering_methods:Mine", "counterfactory.estimators")
    plugins._imported.cache_clear()
    try:
        with pytest.raises(PluginError) as caught:
            plugins.load(entry, check)
    finally:
        plugins._imported.cache_clear()
        sys.modules.pop("offering_methods", None)
    line = str(caught.value)
    assert line.startswith(
        "an installed package: its entry point `mine = offering_methods:Mine` of counterfactory.estimators cannot be loaded: "
    )
    assert said in line
    assert "\n" not in line


def test_a_package_that_fails_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def load(self: EntryPoint) -> None:
        tries.append(1)
        raise ImportError("no")

    monkeypatch.setattr(EntryPoint, "load", load)
    plugins._imported.cache_clear()
    try:
        for _ in range(2):
            with pytest.raises(PluginError, match="ImportError: no"):
                plugins.load(EntryPoint("mine", "package:Mine", "counterfactory.estimators"), nothing)
    finally:
        plugins._imported.cache_clear()
    assert len(tries) == 1
