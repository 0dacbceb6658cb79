"""Whether a sweep was made by this user, here: whose code it is that training on, or attributing, would run."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.seals import is_sealed, seal_of
from orchestrator.sweeps.sweep import Sweep
from workers.loading import BUILT_IN


class Origin(BaseModel):
    """Who made a sweep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    """user@host"""
    folder: str
    """Where it was made."""
    seal: str
    """What nobody else could write: of the folder and of the task."""
    place: str = ""
    """The same of the folder alone, whatever its task is; empty where it was not kept."""


def origin_of(sweep: Sweep) -> Origin:
    """Return who makes the sweep: this user, here."""
    by, root = f"{_user()}@{socket.gethostname()}", str(sweep.paths.root)
    return Origin(by=by, folder=root, seal=seal_of(_told(sweep)), place=seal_of(root))


def whose(sweep: Sweep, made: Origin | None) -> str:
    """Return whose code training would run, in one line; empty where it is ours, or the sweep was made by this user, here."""
    code = _code(sweep)
    if not code:
        return ""
    return "" if made is not None and is_sealed(_told(sweep), made.seal) else _said(sweep, made, "another task", code)


def whose_estimators(sweep: Sweep, made: Origin | None) -> str:
    """Return whose code the sweep's own estimators are, in one line; empty where there are none, or they are this user's."""
    own = sweep.own_estimators()
    return (
        "" if not own or is_sealed(own, sweep.seal) else _said(sweep, made, "other estimators", ", ".join(own["code"]))
    )


def _said(sweep: Sweep, made: Origin | None, others: str, code: str) -> str:
    """Say whose code is about to run: of a sweep from elsewhere, or of one from here that then had `others`."""
    if made is not None and is_sealed(str(sweep.paths.root), made.place):
        was = f"was made here with {others}"
    else:
        was = f"was made elsewhere ({'nobody knows by whom' if made is None else f'by {made.by} in {made.folder}'})"
    return f"{sweep.paths.root}: {was}; about to run the code of {code}"


def _code(sweep: Sweep) -> str:
    """Return where the task's code is; empty for a built-in task, unless it brings an estimator that is not scikit-learn's."""
    named = sweep.config.task.name
    if named in BUILT_IN:
        named = str(sweep.config.task.arguments.get("estimator", ""))
    source = named.rpartition(":")[0]
    if source.endswith(".py"):
        return str((sweep.config.folder / Path(source).expanduser()).resolve())
    return "" if not source or source.partition(".")[0] == "sklearn" else f"module {source}"


def _told(sweep: Sweep) -> list[Any]:
    """Return what the seal of a task is of: where the configuration is counts only where the task's file is sought from there."""
    kept, _ = without_secrets(sweep.config.task.model_dump(mode="json"))
    in_module = _code(sweep).startswith("module ")
    return [str(sweep.paths.root), "" if in_module else str(sweep.config.folder), kept]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may give its user no name
        return "unknown"
