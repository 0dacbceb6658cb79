"""Removal curves: sweeps inside the sweep's folder, which train on what is left when valued examples are taken away.

One for every estimator asked, in `removal/<estimator>`: an ordinary sweep, with its own store, ledger and lease, whose `explicit`
designs `best` and `worst` lack ever more examples; and `removal/random`, whose design `any` lacks random ones.
"""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.scores.removal import RemovalCurve, removal_curve, removal_masks
from orchestrator.attribution.evidence import load_runs
from orchestrator.config.loading import validate
from orchestrator.config.schema import Config, RemovalSection
from orchestrator.examples import Valued
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attribution, read_utility
from orchestrator.store.durable import write_atomically
from orchestrator.store.paths import SweepPaths, check_name
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import PROVISIONAL_PACK
from orchestrator.sweeps.sweep import Sweep

ANY = "any"
"""Design of the random order, which has no best and no worst."""


@dataclass(frozen=True)
class Removal:
    """One finished curve."""

    estimator: str
    order: str
    """best, worst, or any for the random order."""
    measure: str
    curve: RemovalCurve
    seeds: int
    train_seconds: float


def folder(sweep: Sweep, label: str) -> SweepPaths:
    """Return where the sweep of one estimator's curves is."""
    return SweepPaths(sweep.paths.root / "removal" / check_name(label))


def nested_sweeps(sweep: Sweep) -> Iterator[Sweep]:
    """Yield the sweeps to be trained, their masks written down, for every estimator that has an attribution.

    A sweep in the folder that was made for other masks (the attribution has changed since) is removed first.
    """
    section = sweep.config.scores.removal
    if section is None:
        return
    for label, masks in _all_masks(sweep, section):
        nested = _nested(sweep, section, label, tuple(masks))
        files = {nested.config.folder / f"{order}.npy": _npy(remaining) for order, remaining in masks.items()}
        if not _stands(nested, files):
            _clear(nested.paths)
        for path, content in files.items():
            if not path.is_file():
                write_atomically(path, content)
        yield nested


def read_curves(sweep: Sweep) -> tuple[Removal, ...]:
    """Return the curves whose runs are all there, by estimator and order."""
    section = sweep.config.scores.removal
    found: list[Removal] = []
    for label in dict.fromkeys([*section.estimators, RemovalSection.BASELINE]) if section else ():
        paths = folder(sweep, label)
        if not paths.config.is_file() or not paths.runs.exists():
            continue
        nested = _sharing(sweep, Sweep.at(paths.root))
        with RunStore.open(paths) as store:
            found += [one for order in store.designs if (one := _curve(sweep, nested, store, label, order)) is not None]
    return tuple(found)


def _curve(sweep: Sweep, nested: Sweep, store: RunStore, label: str, order: str) -> Removal | None:
    section = sweep.config.scores.removal
    assert section is not None
    measure = section.measure or sweep.config.measures[0]
    runs = load_runs(nested, store, order, measure)
    if len(np.unique(runs.subsets)) < nested.plans[order].design.count(nested.plans[order].context):
        return None
    seeds = nested.plans[order].design.seeds
    return Removal(label, order, measure, removal_curve(runs), seeds, accounting.train_seconds(store, [order]))


def _all_masks(sweep: Sweep, section: RemovalSection) -> Iterator[tuple[str, dict[str, NDArray[np.bool_]]]]:
    """Yield each estimator's label and the subsets (k, n) that remain, by order."""
    stored = list_attributions(sweep.paths)
    for label in dict.fromkeys(section.estimators):
        if label not in stored:
            continue
        values, _, _, attributes = read_attribution(sweep.paths, label)
        valued = Valued(values, read_utility(sweep.paths, label)[0], attributes["measure"], sweep.queries)
        helpful = valued.helpfulness(section.better)
        yield label, {order: removal_masks(helpful, section.fractions, order) for order in dict.fromkeys(section.order)}
    if RemovalSection.BASELINE not in section.estimators:
        drawn = np.random.default_rng([sweep.config.seed, sweep.task.n]).permutation(sweep.task.n).astype(np.float64)
        yield RemovalSection.BASELINE, {ANY: removal_masks(drawn, section.fractions, "best")}


def _nested(sweep: Sweep, section: RemovalSection, label: str, orders: tuple[str, ...]) -> Sweep:
    config, paths = sweep.config, folder(sweep, label)
    runs = len(section.fractions) * section.seeds
    preferred = PROVISIONAL_PACK if config.pack == "auto" else config.pack
    raw: dict[str, Any] = {
        "name": f"{config.name}-removal-{label}",
        "seed": config.seed,
        "folder": str(paths.root),
        "task": {"name": _absolute(config), "arguments": dict(sweep.spec.arguments)},
        "queries": config.queries.model_dump(),
        "measures": config.measures,
        "designs": {order: {"kind": "explicit", "masks": f"{order}.npy", "seeds": section.seeds} for order in orders},
        "pack": min(preferred, max(1, math.ceil(runs / 8))),
        "scores": {"lds": None, "loo": None, "detection": None},
        "ray": config.ray.model_dump(),
    }
    return _sharing(sweep, Sweep(validate(raw, str(paths.root)), paths))


def _absolute(config: Config) -> str:
    """Return the task's name; if it is a file, one that is found from another folder too."""
    source, colon, attribute = config.task.name.rpartition(":")
    if not source.endswith(".py"):
        return config.task.name
    return f"{(config.folder / Path(source).expanduser()).resolve()}{colon}{attribute}"


def _sharing(sweep: Sweep, nested: Sweep) -> Sweep:
    """Return the nested sweep with the task that is built already."""
    nested.__dict__["task"] = sweep.task
    return nested


def _stands(nested: Sweep, files: dict[Path, bytes]) -> bool:
    """Say whether what the folder holds, if anything, was made for these masks."""
    if not nested.paths.config.is_file():
        return not nested.paths.root.exists()
    same = all(path.is_file() and path.read_bytes() == content for path, content in files.items())
    return same and Sweep.at(nested.paths.root).config.identity() == nested.config.identity()


def _clear(paths: SweepPaths) -> None:
    if paths.runs.exists():
        RunStore.open(paths, write=True).close()  # refuses, by the lease, while another process trains there
    shutil.rmtree(paths.root, ignore_errors=True)


def _npy(masks: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, masks)
    return buffer.getvalue()
