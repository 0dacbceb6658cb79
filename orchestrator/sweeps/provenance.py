"""What decides a sweep's runs beside its configuration: recorded, compared when it goes on, never mixed in silence.

`provenance.json` has a record for everything that runs were trained under; the last one is what the sweep goes on under. Each
delivery in the ledger names the record that its rows were trained under.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_there, read_plain
from orchestrator.store.secret_names import without_secrets
from orchestrator.sweeps.origin import Origin, origin_of
from orchestrator.sweeps.sources import source_hashes
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError
from workers.recipe import Recipe

PACKAGES = ("counterfactory", "torch", "torchvision", "numpy", "scikit-learn", "numba", "zarr", "ray")
COMPUTING = frozenset({"counterfactory", "torch", "torchvision", "numpy", "scikit-learn", "numba"})
"""Packages that a run's outputs come from: another minor version of one may mean other outputs, so it is refused."""
SHOWN = 3
"""Differences that a refusal names."""


class Difference(BaseModel):
    """Something that decides runs, and is another than it was."""

    model_config = ConfigDict(frozen=True)

    what: str
    """Such as `source my_task.py`, or `recipe.lr`."""
    was: str
    now: str
    refused: bool
    """Whether a sweep goes on under it only when that is accepted; otherwise it is said."""

    def __str__(self) -> str:
        return f"{self.what}: {self.was} -> {self.now}"


class Provenance(BaseModel):
    """What runs are trained under."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configuration: str
    """Hash of what decides the runs in it."""
    data: str
    """Hash of the task's tensors and of its `fingerprint`; empty for a black box that tells none."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    source: dict[str, str] = Field(default_factory=dict)
    """Hash of every source file of the task."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of Python and of packages, and what PyTorch makes of the processor."""

    @property
    def id(self) -> str:
        """A hash of all of it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, now: Provenance) -> list[Difference]:
        """Return what is another in `now`."""
        found = []
        for what, was, is_now in _pairs(_dumped(self), _dumped(now)):
            package = what.removeprefix("version of ")
            refused = package == what or (package in COMPUTING and _minor(was) != _minor(is_now))
            found.append(Difference(what=what, was=was, now=is_now, refused=refused))
        return found


def _dumped(record: Provenance) -> dict[str, Any]:
    """Return a record's content. A field that a recipe of old does not have was as its default is: nothing else was done yet."""
    content = record.model_dump(mode="json")
    if record.recipe:
        content["recipe"] = Recipe().model_dump(mode="json") | record.recipe
    return content


def _pairs(was: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what differs between two records: what it is, and both values in words."""
    titles = {"recipe": "recipe.", "source": "source ", "versions": "version of "}
    found = []
    for section in was:
        if section not in titles:
            values = [(section, was[section], now[section])]
        else:
            keys = dict.fromkeys([*was[section], *now[section]])
            values = [(titles[section] + key, was[section].get(key), now[section].get(key)) for key in keys]
        found += [(what, _said(a), _said(b)) for what, a, b in values if a != b]
    return found


def _said(value: Any) -> str:
    return "absent" if value in (None, "") else str(value)


def _minor(number: str) -> list[str]:
    return number.split(".")[:2]


class _Kept(BaseModel):
    """`provenance.json`."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    made: Origin
    records: tuple[Provenance, ...] = Field(min_length=1)


def provenance(sweep: Sweep, data: str | None = None) -> Provenance:
    """Return what runs trained here and now are trained under; builds the task, and hashes its data unless that is known."""
    recipe = getattr(sweep.task, "recipe", None)
    return Provenance(
        configuration=sweep.config.identity(),
        data=sweep.data_hash() if data is None else data,
        recipe=without_secrets(recipe.model_dump(mode="json"))[0] if isinstance(recipe, BaseModel) else {},
        source=source_hashes(sweep.spec),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    import torch

    found = {"python": sys.version.split()[0], "torch_cpu": torch.backends.cpu.get_cpu_capability()}
    return found | {name: version(name) for name in PACKAGES}


def read_provenance(paths: SweepPaths) -> tuple[Provenance, ...]:
    """Return all that the runs were trained under, the latest last; none where nothing was recorded."""
    kept = _read(paths)
    return () if kept is None else kept.records


def read_origin(paths: SweepPaths) -> Origin | None:
    """Return who made the sweep, None where nothing was recorded."""
    kept = _read(paths)
    return None if kept is None else kept.made


def _read(paths: SweepPaths) -> _Kept | None:
    if not is_there(paths.provenance):
        return None
    with refusing("read", paths.provenance):
        content = read_plain(paths.provenance)
    try:
        return _Kept.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(
            f"{paths.provenance} is damaged: put it back; or delete it, and go on with --accept-changes"
        ) from error


def record(sweep: Sweep, now: Provenance) -> str:
    """Make `now` what the sweep goes on under; return its id. Only the process that holds the lease may call it."""
    kept = _read(sweep.paths)
    if kept is None:
        kept = _Kept(made=origin_of(sweep), records=(now,))
    elif kept.records[-1] == now:
        return now.id
    else:
        kept = kept.model_copy(update={"records": (*kept.records, now)})
    write_atomically(sweep.paths.provenance, json.dumps(kept.model_dump(mode="json"), indent=1).encode(), private=True)
    return now.id


def compared(sweep: Sweep, *, accept: bool, data: bool = True) -> tuple[Provenance, list[Difference]]:
    """Return what runs are trained under here, and how that differs from what the sweep's were; builds the task.

    Without `data` the task's data are not looked at, and taken for what they were. Raises StoreError, one line that names what
    differs, unless that is of no account or to be accepted.
    """
    records = read_provenance(sweep.paths)
    known = None if data else records[-1].data if records else ""
    now = provenance(sweep, known)
    remedy = "choose another --out, or go on all the same with --accept-changes"
    if not records:
        if not accept:
            raise StoreError(
                f"{sweep.paths.root}: keeps no {sweep.paths.provenance.name}, so nobody knows under which data, source and "
                f"versions its runs were trained; {remedy}"
            )
        return now, []
    found = records[-1].differences(now)
    refused = [str(one) for one in found if one.refused]
    if refused and not accept:
        more = f", and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise StoreError(
            f"{sweep.paths.root}: what decides its runs has changed since they were made ({'; '.join(refused[:SHOWN])}{more}); "
            f"put it back, {remedy}"
        )
    return now, found
