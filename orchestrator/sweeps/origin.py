"""Whether a sweep was made by this user, here: whose code it is that training on would run.

A seal with a secret that stays in the user's cache folder: a stranger's sweep cannot claim to be the user's own, nor can one of
the user's that a stranger changed.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import json
import os
import secrets
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.sweep import Sweep
from workers.loading import BUILT_IN
from workers.machine import cache_folder


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
    return Origin(by=f"{_user()}@{socket.gethostname()}", folder=str(sweep.paths.root), seal=_seal(sweep))


def whose(sweep: Sweep, made: Origin | None) -> str:
    """Return whose code training would run, in one line; empty where it is ours, or the sweep was made by this user, here."""
    code = _code(sweep)
    if not code:
        return ""
    if made is not None and hmac.compare_digest(made.seal, _seal(sweep)):
        return ""
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


def _seal(sweep: Sweep) -> str:
    task = sweep.config.task.model_dump(mode="json")
    kept, _ = without_secrets(task)
    told = json.dumps([str(sweep.paths.root), str(sweep.config.folder), kept], sort_keys=True)
    return hmac.new(_secret(), told.encode(), hashlib.sha256).hexdigest()[:32]


def _secret() -> bytes:
    """Return this user's secret, made the first time."""
    path = cache_folder() / "secret"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent) as part:  # readable by nobody else
            part.write(secrets.token_bytes(32))
            part.flush()
            with suppress(FileExistsError):  # another process was first
                os.link(part.name, path)
    return path.read_bytes()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may give its user no name
        return "unknown"
