"""A task's own file and what stands beside it, imported as a private package.

Every task file has a package of its own, whose path is the file's folder. An `import helper` in the file, or in what it imports
from there, means `<package>.helper` if there is such a module: two tasks that each bring a `helper.py` never share it, neither in
one process nor between driver and workers. `sys.path` stays as it is.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from threading import RLock
from types import CodeType, ModuleType
from typing import Any

from workers.errors import TaskError, one_line

OUR_PACKAGES = ("workers", "estimators", "orchestrator")
_PREFIX = "_counterfactory_task_"
_LOCK = RLock()


def load_file(path: Path) -> ModuleType:
    """Import a task's file, once until it or what it brought from its folder changes. Raises TaskError, in one line."""
    if not path.is_file():
        raise TaskError(f"there is no file {path}")
    package = _PREFIX + hashlib.sha256(str(path).encode() + b"\0" + path.read_bytes()).hexdigest()[:16]
    name = f"{package}.{path.stem}"
    with _LOCK:
        if name in sys.modules and _is_current(package):
            return sys.modules[name]
        _forget(package)
        _import_package(package, path.parent)
        try:
            return _import_from(name, path)
        except Exception as error:
            _forget(package)
            why = _shadowed(path, error) or one_line(error).replace(f"{package}.", "")
            raise TaskError(f"{path.name}{line_in(path, error)}: {why}") from error


def line_in(path: Path, error: BaseException) -> str:
    """Return ', line N' for the innermost frame of the error that lies in the file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f", line {lines[-1]}" if lines else ""


class _Source(SourceFileLoader):
    """Loads one file of a private package, whose imports look beside it first.

    It is compiled from its text: Python's cache of compiled files takes two versions of one second for the same.
    """

    text = b""

    def get_code(self, fullname: str) -> CodeType:
        self.text = self.get_data(self.path)
        code: CodeType = self.source_to_code(self.text, self.path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        # Import statements call the __import__ of the builtins that their module's globals name, whenever they run.
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": partial(_import, package)}
        super().exec_module(module)

    @property
    def is_current(self) -> bool:
        try:
            return Path(self.path).read_bytes() == self.text
        except OSError:
            return False


class _Finder:
    """Finds the modules of private packages, as Python's own finder does, and has them loaded by `_Source`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_PREFIX):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Source(name, spec.loader.path)
        return spec


def _import_package(package: str, folder: Path) -> None:
    """Put an empty package with this folder into sys.modules."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    importlib.invalidate_caches()
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[package] = importlib.util.module_from_spec(spec)


def _import_from(name: str, path: Path) -> ModuleType:
    loader = _Source(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _import(
    package: str,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Do what `builtins.__import__` does, for code of a private package."""
    top = name.partition(".")[0]
    if level or not _is_beside(package, top):
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    found = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or (), 0)
    return found if fromlist else sys.modules[f"{package}.{top}"]


def _is_beside(package: str, top: str) -> bool:
    """Say whether a module stands beside the task. Ours and the standard library's names are never taken to mean that."""
    if f"{package}.{top}" in sys.modules:
        return True
    if top in OUR_PACKAGES or top in sys.stdlib_module_names:
        return False
    spec = PathFinder.find_spec(top, list(sys.modules[package].__path__))
    if spec is None or spec.origin is not None:
        return spec is not None
    return not _has_file(top)  # a mere folder may hold anything, of any name


def _has_file(name: str) -> bool:
    """Say whether Python itself would find a module that is more than a folder."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) is not None
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _members(package: str) -> list[str]:
    return [name for name in sys.modules if name == package or name.startswith(f"{package}.")]


def _is_current(package: str) -> bool:
    loaders = [getattr(sys.modules[name].__spec__, "loader", None) for name in _members(package)]
    return all(loader.is_current for loader in loaders if isinstance(loader, _Source))


def _forget(package: str) -> None:
    for name in _members(package):
        del sys.modules[name]


def _shadowed(path: Path, error: Exception) -> str | None:
    """Return the message for a file that meant its own `workers` (or the like) and got ours, or None."""
    if isinstance(error, ImportError):
        top = (error.name or "").partition(".")[0]
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        top = error.obj.__name__.partition(".")[0]
    else:
        return None
    if top not in OUR_PACKAGES or not ((path.parent / f"{top}.py").exists() or (path.parent / top).is_dir()):
        return None
    return (
        f"{one_line(error)}: `{top}` is counterfactory's own package here, not the one in {path.parent}; "
        "import that code under another name (rename it, or put it in a package of its own)"
    )
