"""How bytes get to the disk without ever being half there: written whole, synced, renamed.

No link is followed on the way (plain_files.py): where a folder above is one, nothing is written, renamed or removed. A link
that lies where a file is to be is replaced itself, and what it points to is left alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.store.plain_files import entries_of, is_folder, is_there, open_plain, refuse_links, status_of
from workers.errors import StoreError

PARTIAL = ".partial"
"""Ending of what is being written (Zarr's LocalStore uses the same one): at rest, it may be removed."""
SYNCS_AT_ONCE = 16
ABANDONED = 3600.0
"""Seconds after which nobody is writing any more what was last written then."""
PRIVATE = 0o600
"""Mode of a file that holds what a user typed, or what their code said."""


@contextmanager
def refusing(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside (no space, no permission, ...) into a one-line StoreError that names the path."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(path) else ""
        raise StoreError(f"cannot {what} {path}: {error.strerror or error}{where}") from error


def write_atomically(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file that is, after a crash at any moment, either wholly there or as it was before; durable on return.

    One that is `private` can be read by its owner alone; in the place of an earlier one, by whom that one could be.
    Raises StoreError when the file cannot be written.
    """
    write_together({path: content}, private=private)


def write_together(files: Mapping[Path, bytes], *, private: bool = False) -> None:
    """Write files, each as `write_atomically` does; all of them are on the disk before the first one takes its name."""
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}") for path in files}
    try:
        for path, content in files.items():
            with refusing("write", path):
                make_folder(path.parent)
                descriptor = open_plain(
                    temporary[path], os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE if private else 0o666
                )
                with open(descriptor, "wb") as file:
                    if private and (former := status_of(path)) is not None and stat.S_ISREG(former.st_mode):
                        os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
                    file.write(content)
        with refusing("write", next(iter(files)).parent if len(files) > 1 else next(iter(files))):
            sync_all(temporary.values())
            for path in files:
                os.replace(temporary[path], path)
            sync_all(sorted({path.parent for path in files}))
    finally:
        for one in temporary.values():
            with suppress(OSError):  # what failed is said above; a remainder is removed by the next writer
                one.unlink()


def create_file(path: Path, content: bytes) -> None:
    """Write a new file in a folder that is being made; nothing is synced before the whole folder is."""
    with open(open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(content)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably."""
    refuse_links(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def temporary_of(path: Path) -> Path:
    """Return where a file or folder is written before it takes the place of `path`."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def folder_at_once(final: Path, what: str = "write") -> Iterator[Path]:
    """Yield where to make a folder, which is not there yet; after the block it takes the place of `final`, durably.

    A process killed meanwhile leaves `final` as it was, the new one or none, never part of one; a block that raises leaves it
    as it was. Raises StoreError ("cannot `what` ...") when the disk refuses.
    """
    new, old = temporary_of(final), _former(final)
    with refusing(what, final):
        refuse_links(final)
        make_folder(final.parent)
        remove_folders(new, old)
        try:
            yield new
            sync_tree(new)
            _replace(new, final, old)
            sync(final.parent)
            remove_folders(old)
        except BaseException:
            # Other threads may still be writing there after an interruption: what is left is removed by the next attempt.
            shutil.rmtree(new, ignore_errors=True)
            raise


def _replace(new: Path, final: Path, old: Path) -> None:
    """Move a folder to `final`, and what was there to `old`; back again when that fails."""
    if is_there(final):
        os.rename(final, old)
    try:
        os.rename(new, final)
    except OSError:
        if is_there(old):
            os.rename(old, final)
        raise


def remove_folders(*folders: Path) -> None:
    """Remove those of the folders that are there, with all that is in them; of links in them the links alone."""
    for folder in folders:
        if is_folder(folder):
            shutil.rmtree(folder)


def remove_file(path: Path) -> None:
    """Remove a file, if there is one; of a link the link alone."""
    refuse_links(path.parent)
    path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file, or the entries of a folder, to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Bring files and folders' entries to the disk; side by side, because a file system brings many there in one go."""
    several = list(paths)
    if len(several) == 1:
        sync(several[0])
        return
    with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
        list(pool.map(sync, several))


def sync_tree(root: Path) -> None:
    """Bring a folder and everything in it to the disk."""
    sync_all(Path(folder, name) for folder, _, files in os.walk(root) for name in (*files, ""))


def remove_at_once(folder: Path) -> None:
    """Remove a folder, if it is there; who reads it meanwhile finds it whole or gone."""
    old = _former(folder)
    remove_folders(old)
    if is_folder(folder):
        os.rename(folder, old)
        sync(folder.parent)
        remove_folders(old)


def is_being_replaced(path: Path) -> bool:
    """Say whether what was at `path` lies beside it: something new is about to take its place, or a killed process left it."""
    return is_there(_former(path))


def _former(path: Path) -> Path:
    """Return where a folder is while another one takes its place."""
    return path.with_name(f".{path.name}.old{PARTIAL}")


def remove_partials(*folders: Path) -> int:
    """Remove the files and folders that a killed process was writing inside `folders`; return how many there were."""
    removed = 0
    for top in folders:
        for entry in entries_of(top):
            if entry.name.endswith(PARTIAL):
                _remove(Path(entry.path))
                removed += 1
            elif entry.is_dir(follow_symlinks=False):
                removed += remove_partials(Path(entry.path))
    return removed


def remove_abandoned(folder: Path) -> int:
    """Remove what lies half written in a folder itself, untouched for `ABANDONED`; return how many there were."""
    known = [Path(entry.path) for entry in entries_of(folder) if entry.name.endswith(PARTIAL)]
    gone = [path for path in known if time.time() - os.lstat(path).st_mtime > ABANDONED]
    for path in gone:
        _remove(path)
    return len(gone)


def _remove(path: Path) -> None:
    """Remove what lies at a path inside a plain folder; of a link the link alone."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
