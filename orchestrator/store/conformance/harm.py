"""What may happen to what lies under a key of a storage, behind the store's back."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from orchestrator.store.conformance.storage import Storage

FOLDERS = {"runs.zarr/fit/outputs/": "outputs", "runs.zarr/fit/": "masks", "checkpoints/fit/": "checkpoint"}
FOLDERS["ledger/fit/0"] = "ledger"
"""What `verify` calls damage under keys that begin so; the first that fits counts."""


def harmable(storage: Storage, kinds: Collection[str] = FOLDERS.values()) -> list[str]:
    """Return the keys of chunks, checkpoints and records; there must be some of each kind."""
    every = storage.keys()
    keys = [key for key in every if kind_of(key) and not key.endswith("zarr.json")]
    missing = set(kinds) - {kind_of(key) for key in keys}
    assert not missing, f"the storage has no keys of any {min(missing)}: expected those that docs/store.md names"
    return keys


def kind_of(key: str) -> str | None:
    """Return what damage under a key is called, None where it is none of a row."""
    return next((kind for start, kind in FOLDERS.items() if key.startswith(start)), None)


def row_of(key: str) -> int:
    """Return the row of a checkpoint."""
    return int(key.split("/")[2])


def pack_of(key: str, size: int) -> int:
    """Return the pack of a chunk, a record or a checkpoint, of packs of `size` rows."""
    number = re.findall(r"/[^\d/]*(\d+)", key)[0]
    return row_of(key) // size if kind_of(key) == "checkpoint" else int(number)


def one_of_each(keys: Sequence[str]) -> list[str]:
    """Return one chunk of each array, one checkpoint and one record: the middle ones."""
    alike: dict[str, list[str]] = {}
    for key in keys:
        folder = key.rpartition("/")[0]
        alike.setdefault(folder if folder.startswith("runs.zarr") else str(kind_of(key)), []).append(key)
    return [found[len(found) // 2] for found in alike.values()]


def harms_to(storage: Storage, key: str, keys: Sequence[str]) -> dict[str, bytes | None]:
    """Return what may lie under a key after harm, by the harm's name; None where nothing does."""
    good = storage.read(key)
    cut: dict[str, bytes | None] = {"cut": good[: len(good) // 2], "gone": None}
    if kind_of(key) == "ledger":
        return cut
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :]
    other = next(one for one in keys if one.rpartition("/")[0] == key.rpartition("/")[0] and one != key)
    return {**cut, "flipped in a bit": flipped, "replaced by another": storage.read(other)}
