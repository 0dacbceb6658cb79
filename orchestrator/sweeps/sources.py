"""The source files that a task, or an estimator of one's own, is made of: its own, and those beside it that it imports."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

from workers.loading import BUILT_IN, TaskSpec
from workers.named_code import source_file
from workers.task_files import OUR_PACKAGES

LARGEST = 1 << 24
"""Bytes of a source file that is only looked at: a stranger's sweep may name any file."""


def source_hashes(spec: TaskSpec) -> dict[str, str]:
    """Return a hash of each source file of a task that was built, by its path from the folder that its imports start at.

    Of a file they are those beside it; of a module, those of its own package; of a built-in task, those of the tasks. What is
    imported by a name that is computed, or installed elsewhere, is not among them.
    """
    if spec.name in BUILT_IN:
        source = BUILT_IN[spec.name].rpartition(":")[0]
        return _of_module(source, source.rpartition(".")[0])
    return hashes_of(spec.name, Path(spec.folder))


def hashes_of(name: str, folder: Path) -> dict[str, str]:
    """Return the same of `path/to/file.py:attribute`, relative to `folder`, or `module:attribute`."""
    first = source_file(name, folder)
    if first is None:
        source = name.rpartition(":")[0]
        return _of_module(source, source.partition(".")[0])
    return _hashes(_reached(first, first.parent, ""), first.parent)


def changed_files(first: Path, known: Mapping[str, str]) -> list[str]:
    """Return which files that `hashes_of` found for the file `first` are others now, or gone. None is parsed or run."""
    return [name for name, was in known.items() if _hash_now(first.parent / name) != was]


def _hash_now(path: Path) -> str:
    """Return the hash of a source file, empty where there is none to be read."""
    try:
        return _hash(path) if path.is_file() and path.stat().st_size <= LARGEST else ""
    except OSError:
        return ""


def _of_module(source: str, package: str) -> dict[str, str]:
    origin = getattr(importlib.util.find_spec(source), "origin", None)
    if origin is None or not origin.endswith(".py"):
        return {}
    first = Path(origin).resolve()
    root = first.parents[source.count(".") + (first.name == "__init__.py")]
    return _hashes(_reached(first, root, package), root)


def _hashes(found: set[Path], root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): _hash(path) for path in sorted(found)}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _reached(first: Path, root: Path, package: str) -> set[Path]:
    """Return the file and all files under `root` that it imports, directly or not, from `package` (from anywhere, if empty)."""
    found, left = {first}, [first]
    while left:
        path = left.pop()
        new = {file for name in _imports(path, root, package) for file in _files(name, root)} - found
        found |= new
        left += new
    return found


def _imports(path: Path, root: Path, package: str) -> Iterator[str]:
    """Yield the full names of what a file may import; a name from a module may be a module too."""
    here = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            base = ".".join((*above, *((node.module,) if node.module else ())))
            names = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
        else:
            continue
        yield from (name for name in names if _is_own(name, package))


def _is_own(name: str, package: str) -> bool:
    if package:
        return f"{name}.".startswith(f"{package}.")
    return bool(name) and name.partition(".")[0] not in OUR_PACKAGES


def _files(name: str, root: Path) -> Iterator[Path]:
    """Yield the files of a module and of the packages around it that are there."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        yield from (path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file())
