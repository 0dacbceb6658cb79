"""Whether a folder's sweep is the one that is asked for."""

from __future__ import annotations

from typing import Any

from orchestrator.store.durable import write_atomically
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError


def refuse_other(sweep: Sweep, *, edited: bool = False) -> None:
    """Refuse a folder that was made from another configuration, naming the first key that differs: the task before the rest.

    With `edited` the one that it holds may have been edited.
    """
    if sweep.paths.root.exists() and not sweep.paths.root.is_dir():
        raise StoreError(f"{sweep.paths.root}: is a file, expected a folder for the sweep; choose another --out")
    if not sweep.paths.config.is_file():
        if sweep.paths.runs.exists():
            raise StoreError(f"{sweep.paths.root}: has runs but no {sweep.paths.config.name}; delete the folder")
        return
    kept = Sweep.at(sweep.paths.root, edited=edited)
    if kept.config.identity() != sweep.config.identity():
        raise StoreError(
            f"{sweep.paths.root}: was made from another configuration ({_difference(kept, sweep)}); "
            "choose another --out, or delete the folder"
        )
    if kept.config.pack != sweep.config.pack:
        raise StoreError(
            f"{sweep.paths.root}: its packs have {kept.config.pack} runs, the configuration asks for {sweep.config.pack}; "
            "leave `pack` out, or choose another --out"
        )


def why_other(sweep: Sweep) -> str:
    """Return why the sweep cannot go on in its folder; empty where it can, or where the folder is still to be made."""
    try:
        refuse_other(sweep, edited=True)
    except StoreError as error:
        return str(error)
    return ""


def refuse_edited(sweep: Sweep, store: RunStore) -> None:
    """Refuse a configuration that was edited to ask for other runs than the store was made for: nobody can accept that."""
    if store.config_hash != sweep.config.identity():
        raise StoreError(
            f"{sweep.paths.config}: asks for other runs than {sweep.paths.runs.name} holds; put it back, or choose another --out"
        )


def accept_edit(sweep: Sweep, store: RunStore) -> None:
    """Make an edited configuration the sweep's own; only the process that holds the lease may call it."""
    refuse_edited(sweep, store)
    write_atomically(sweep.paths.config, sweep.resolved_yaml().encode(), private=True)


def _difference(kept: Sweep, asked: Sweep) -> str:
    """Name the first key in which two configurations ask for other runs."""
    then, now = _flat(kept.config.deciding()), _flat(asked.config.deciding())
    for key in sorted({*then, *now}, key=lambda key: (key != "task.name", key)):
        was, is_now = then.get(key, "absent"), now.get(key, "absent")
        if was != is_now:
            return f"{key} is {is_now!r} here and {was!r} there"
    return "its configuration file was edited"


def _flat(plain: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(plain, dict):
        return {prefix: plain}
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return found
