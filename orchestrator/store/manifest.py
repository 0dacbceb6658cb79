"""What a run store holds: the designs, the measures and the sizes, as written in the root attributes of runs.zarr."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from orchestrator.store.metadata import METADATA, read_attributes
from orchestrator.store.paths import SweepPaths, check_name
from orchestrator.store.plain_files import SMALL
from workers.errors import StoreError
from workers.machine import total_bytes

FORMAT = "counterfactory runs"
FORMAT_VERSION = 2
"""1 knows no design with weights; a store of it is read as it is."""


@dataclass(frozen=True)
class DesignKind:
    """What a kind of design says of itself: it is read where the kind is not installed. See `Design`."""

    serves: tuple[str, ...] = ()
    """Which needs of estimators and scores its runs meet."""
    follows: str | None = None
    """The design whose subsets these are."""
    growth_keys: tuple[str, ...] = ()
    """Keys of its section that only say how much is drawn."""
    package: str = ""
    """The package that registers it, and its version; empty for one of ours."""


@dataclass(frozen=True)
class DesignLayout:
    """What the store must know of a design."""

    name: str
    kind: str
    """subsets, bernoulli, leave_one_out, ..."""
    purpose: str
    """"fit": estimators may use its runs; "score": attributions are judged on them."""
    runs: PositiveInt
    """Number of its rows, m."""
    pack: PositiveInt
    """Rows a pack, which are the rows a chunk; the last pack may have fewer."""
    of_kind: DesignKind = DesignKind()
    """What its kind says of itself."""
    weighted: bool = False
    """Whether its rows have weights beside their masks."""

    @property
    def packs(self) -> int:
        """Number of its packs."""
        return -(-self.runs // self.pack)

    def rows(self, pack: int) -> range:
        """Return the rows of a pack. Raises ValueError when there is no such pack."""
        if not 0 <= pack < self.packs:
            raise ValueError(f"design {self.name!r} has packs 0..{self.packs - 1}, not {pack}")
        return range(pack * self.pack, min((pack + 1) * self.pack, self.runs))

    def pack_of(self, row: int) -> int:
        """Return the pack of a row. Raises ValueError when there is no such row."""
        if not 0 <= row < self.runs:
            raise ValueError(f"design {self.name!r} has rows 0..{self.runs - 1}, not {row}")
        return row // self.pack


class Manifest(BaseModel):
    """The root attributes."""

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    config_hash: str
    n: PositiveInt
    t: PositiveInt
    measures: tuple[str, ...] = Field(min_length=1)
    designs: tuple[DesignLayout, ...] = Field(min_length=1)
    attributes: dict[str, Any] = Field(default_factory=dict)

    def check_names(self) -> None:
        """Raise StoreError when a name cannot be a path or comes twice."""
        for names in (self.measures, tuple(design.name for design in self.designs)):
            for name in names:
                if names.count(check_name(name)) > 1:
                    raise StoreError(f"the name {name!r} is used twice; names of designs and of measures are unique")


def refuse_oversized(what: str, size: int) -> None:
    """Raise StoreError where something would take more bytes than this machine has, before any of them is allocated."""
    if size > SMALL and size > (memory := total_bytes()):
        raise StoreError(f"{what} takes {size:,} bytes, and this machine has {memory:,}")


def read_manifest(paths: SweepPaths) -> Manifest:
    """Return the manifest of a sweep's runs. Raises StoreError as `parse_manifest` does, and where there is none."""
    return parse_manifest(read_attributes(paths.runs), str(paths.runs / METADATA))


def parse_manifest(attributes: dict[str, Any], where: str) -> Manifest:
    """Return the manifest in root attributes. Raises StoreError for a foreign, newer or damaged one."""
    version = attributes.get("format_version")
    if attributes.get("format") != FORMAT or not isinstance(version, int):
        raise StoreError(f"{where} is not a run store of counterfactory: its attributes name no format and version")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{where} has format version {version}, this counterfactory reads up to version {FORMAT_VERSION}: upgrade it"
        )
    try:
        manifest = Manifest.model_validate(attributes)
    except ValueError as error:
        problem = str(error).splitlines()
        raise StoreError(f"{where} is damaged: {' '.join(map(str.strip, problem[1:3])) or problem[0]}") from error
    manifest.check_names()
    for design in manifest.designs:
        size = design.pack * max(manifest.n * (4 if design.weighted else 1), 4 * manifest.t)
        refuse_oversized(f"{where}: a pack of design {design.name!r}", size)
        refuse_oversized(f"{where}: the ledger of design {design.name!r}", design.packs * design.pack)
    return manifest
