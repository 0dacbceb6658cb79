"""Where everything of a sweep is, and how a file gets there without ever being half there."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.errors import StoreError

PARTIAL = ".partial"
"""Ending of what is being written (Zarr's LocalStore uses the same one): at rest, it may be removed."""
SYNCS_AT_ONCE = 16

_PLAIN = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class SweepPaths:
    """Every path of one sweep folder. Names of designs, measures and attributions must be plain file names."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @property
    def config(self) -> Path:
        """The resolved configuration (YAML)."""
        return self.root / "config.yaml"

    @property
    def lease(self) -> Path:
        """Locked by the process that writes, and says which one it is (JSON)."""
        return self.root / "lease"

    @property
    def calibration(self) -> Path:
        """What was measured before packs were sized (JSON)."""
        return self.root / "calibration.json"

    @property
    def forecast(self) -> Path:
        """What the sweep was expected to take (JSON)."""
        return self.root / "forecast.json"

    @property
    def stopping(self) -> Path:
        """How the designs' stopping criteria went (JSON)."""
        return self.root / "stopping.json"

    @property
    def runs(self) -> Path:
        """The Zarr group of all runs."""
        return self.root / "runs.zarr"

    @property
    def attributions(self) -> Path:
        """The Zarr group of all attributions."""
        return self.root / "attributions.zarr"

    @property
    def pieces(self) -> Path:
        """Folder of the finished pieces of attributions that are being computed."""
        return self.root / "pieces"

    @property
    def ledger(self) -> Path:
        """Folder of the ledger."""
        return self.root / "ledger"

    @property
    def checkpoints(self) -> Path:
        """Folder of all checkpoints."""
        return self.root / "checkpoints"

    @property
    def scores(self) -> Path:
        """The scores (Parquet)."""
        return self.root / "scores.parquet"

    @property
    def report(self) -> Path:
        """The report (HTML)."""
        return self.root / "report.html"

    def plan_array(self, design: str, name: str) -> Path:
        """`masks`, `seeds`, `subsets` or `repeats` of a design (Zarr array)."""
        return self.runs / plain(design) / name

    def output_array(self, design: str, measure: str) -> Path:
        """Outputs of a design through one measure (Zarr array)."""
        return self.runs / plain(design) / "outputs" / plain(measure)

    def design_ledger(self, design: str) -> Path:
        """Folder of the ledger records of a design."""
        return self.ledger / plain(design)

    def record(self, design: str, pack: int) -> Path:
        """Ledger record of a pack (JSON)."""
        return self.design_ledger(design) / f"{pack:06d}.json"

    def plan_record(self, design: str) -> Path:
        """Says that the plan of a design is completely written (JSON)."""
        return self.design_ledger(design) / "plan.json"

    def run_checkpoints(self, design: str, row: int) -> Path:
        """Folder of the checkpoints of one run."""
        return self.checkpoints / plain(design) / str(row)

    def checkpoint(self, design: str, row: int, epoch: int) -> Path:
        """One checkpoint (safetensors)."""
        return self.run_checkpoints(design, row) / f"{epoch}.safetensors"

    def attribution(self, name: str) -> Path:
        """One attribution (Zarr group)."""
        return self.attributions / plain(name)


def plain(name: str) -> str:
    """Return `name` if it can be the name of a file and of a Zarr node. Raises StoreError otherwise."""
    if not _PLAIN.fullmatch(name) or name.startswith("__") or name == "zarr.json" or name.endswith(PARTIAL):
        raise StoreError(
            f"{name!r} cannot name a folder: use letters, digits, '_', '-' and '.', a letter or digit first"
        )
    return name


@contextmanager
def refusing(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside (no space, no permission, ...) into a one-line StoreError that names the path."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        raise StoreError(f"cannot {what} {path}: {error.strerror or error}{where}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is, after a crash at any moment, either wholly there or as it was before; durable on return.

    Raises StoreError when the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with refusing("write", path):
        make_folder(path.parent)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Bring files and folders' entries to the disk; side by side, because a file system brings many there in one go."""
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
        list(pool.map(sync, paths))


def sync_tree(root: Path) -> None:
    """Bring a folder and everything in it to the disk."""
    sync_all(Path(folder, name) for folder, _, files in os.walk(root) for name in (*files, ""))


def remove_partials(*folders: Path) -> int:
    """Remove the files that a killed process was writing inside `folders`; return how many there were."""
    removed = 0
    for top in folders:
        for folder, _, files in os.walk(top):
            for name in files:
                if name.endswith(PARTIAL):
                    Path(folder, name).unlink()
                    removed += 1
    return removed
