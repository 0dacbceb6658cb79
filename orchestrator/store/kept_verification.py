"""Finding damage in what is kept beside the runs: gradients of training examples, and attributions of queries that came later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.store.gradients import check_gradients, kept_networks, read_gradients
from orchestrator.store.metadata import read_attributes
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import entries_of, is_folder
from orchestrator.store.query_attributions import list_query_attributions, read_query_attribution
from workers.errors import StoreError


@dataclass(frozen=True)
class KeptDamage:
    """Something kept beside the runs that is not what was written. No run is lost by it."""

    path: Path
    """The group at fault."""
    reason: str
    """What is wrong, with the file's name."""
    remedy: str

    def __str__(self) -> str:
        """Say it in a line, with the remedy."""
        return f"{self.reason}: {self.remedy}"


def verify_gradients(paths: SweepPaths) -> list[KeptDamage]:
    """Read all gradients that are kept and return what is damaged: chunks, their metadata, the record of what decided them."""
    remedy = f"remove {{}}, and `counterfactory attribute {paths.root}` makes it anew"
    found = _attempted(paths.gradients, partial(read_attributes, paths.gradients), remedy)
    for name in _folders(paths.gradients):
        group = paths.estimator_gradients(name)
        found += _attempted(group, partial(read_attributes, group), remedy)
        for number in kept_networks(paths, name):
            network = paths.network_gradients(name, number)
            found += _attempted(network, partial(_read_network, paths, name, number), remedy)
    return found


def verify_query_attributions(paths: SweepPaths) -> list[KeptDamage]:
    """Read all attributions of queries that came later and return what is damaged: chunks, metadata, other values."""
    remedy = "remove {}, and attribute the queries again"
    found = _attempted(paths.queries, partial(read_attributes, paths.queries), remedy)
    for queries in _folders(paths.queries):
        group = paths.queries / queries
        found += _attempted(group, partial(read_attributes, group), remedy)
    for queries, name in list_query_attributions(paths):
        where = paths.query_attribution(queries, name)
        found += _attempted(where, partial(read_query_attribution, paths, queries, name), remedy)
    return found


def _read_network(paths: SweepPaths, name: str, number: int) -> None:
    kept = read_gradients(paths, name, number)
    if kept is not None:
        check_gradients(kept)


def _folders(path: Path) -> list[str]:
    found = (one.name for one in entries_of(path) if one.is_dir(follow_symlinks=False))
    return sorted(name for name in found if not name.startswith("."))


def _attempted(path: Path, read: Callable[[], object], remedy: str) -> list[KeptDamage]:
    """Return what reading a group brings up, if it is there."""
    if not is_folder(path):
        return []
    try:
        read()
    except StoreError as error:
        return [KeptDamage(path, str(error), remedy.format(path))]
    return []
