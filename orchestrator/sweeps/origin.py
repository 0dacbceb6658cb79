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


def origin_of(sweep: Sweep) -> Origin:
    """Return who makes the sweep: this user, here."""
    return Origin(by=f"{_user()}@{socket.gethostname()}", folder=str(sweep.paths.root), seal=seal_of(_told(sweep)))


def whose(sweep: Sweep, made: Origin | None) -> str:
    """Return whose code training would run, in one line; empty where it is ours, or the sweep was made by this user, here."""
    code = _code(sweep)
    if not code:
        return ""
    return "" if made is not None and is_sealed(_told(sweep), made.seal) else _said(sweep, made, code)


def whose_estimators(sweep: Sweep, made: Origin | None) -> str:
    """Return whose code the sweep's own estimators are, in one line; empty where there are none, or they are this user's."""
    own = sweep.own_estimators()
    return "" if not own or is_sealed(own, sweep.seal) else _said(sweep, made, ", ".join(own["code"]))


def _said(sweep: Sweep, made: Origin | None, code: str) -> str:
    by = "nobody knows by whom" if made is None else f"by {made.by} in {made.folder}"
    return f"{sweep.paths.root}: was made elsewhere ({by}); about to run the code of {code}"


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
    """Return what the seal of a task is of."""
    kept, _ = without_secrets(sweep.config.task.model_dump(mode="json"))
    return [str(sweep.paths.root), str(sweep.config.folder), kept]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may give its user no name
        return "unknown"
