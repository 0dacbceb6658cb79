"""The files of a sweep, looked at as what they are: plain files and plain folders, no link followed to anything else.

A sweep may be a stranger's. Its own folder may be a link, of the user's own choice, and is resolved once (SweepPaths). Below it
a link, a pipe or a device would make its reader read, wait for, overwrite or remove something else: it is refused by its name.
Whatever reads or lists a file of a sweep does it here, and whatever writes one does it in durable.py, by `open_plain`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from workers.errors import StoreError
from workers.machine import total_bytes

SMALL = 2**28
"""Bytes that a file of text (JSON, YAML) has at most; what is larger was not written by us."""


def refuse_links(path: Path) -> None:
    """Raise StoreError where a path (absolute) or a folder on the way to it is a link."""
    if os.path.realpath(path) == str(path):
        return
    for place in (*reversed(path.parents), path):
        if place.is_symlink():
            raise StoreError(
                f"{place} is a link: inside a sweep none is followed; put what it points to in its place, or remove it"
            )
    raise StoreError(f"{path} is no absolute path without links: resolve it first")


def open_plain(path: Path, flags: int, mode: int = 0o666) -> int:
    """Return a descriptor of a plain file, opened with `flags` of os.open.

    Raises StoreError where it or a folder on the way to it is a link, or where it is a pipe, a device or a folder; OSError as
    os.open does, such as FileNotFoundError.
    """
    reading = flags == os.O_RDONLY
    if not reading:
        refuse_links(path)
    try:
        # Not blocking: to open a pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError:
        refuse_links(path)
        raise
    try:
        if reading and _opened(descriptor) != str(path):
            refuse_links(path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"{path} is no plain file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _opened(descriptor: int) -> str:
    """Return the path that was opened, links followed, where the system tells it (Linux): quicker than a look at each folder."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def read_plain(path: Path, most: int | None = None) -> bytes:
    """Return a file's bytes, at most `most` of them, or as many as the machine has memory. Raises as `open_plain` does.

    A larger file is refused before any of it is read: a file with holes takes no room on the disk.
    """
    with open(open_plain(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > (SMALL if most is None else most) and size > (limit := total_bytes() if most is None else most):
            raise StoreError(f"{path} is damaged: it has {size:,} bytes, expected at most {limit:,}")
        return file.read(size)


def mapped_array(path: Path) -> np.memmap[Any, Any]:
    """Return the array of a .npy file, read-only and read when it is looked at. Raises as `open_plain`, and ValueError."""
    with open(open_plain(path, os.O_RDONLY), "rb") as file:
        version = npy.read_magic(file)
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
        if dtype.hasobject:
            raise ValueError(f"{path} holds objects")
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def text_of(path: Path) -> str:
    """Return the text of a small file. Raises as `open_plain` does, and UnicodeDecodeError."""
    return read_plain(path, SMALL).decode("utf-8")


def status_of(path: Path) -> os.stat_result | None:
    """Return what lies at a path, a link as a link; None where there is nothing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_there(path: Path) -> bool:
    """Say whether anything lies at a path, be it a link to nothing."""
    return status_of(path) is not None


def is_plain(path: Path) -> bool:
    """Say whether a plain file lies at a path. Raises StoreError where it or a folder on the way to it is a link."""
    refuse_links(path)
    found = status_of(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Say whether a folder lies at a path. Raises StoreError where it or a folder on the way to it is a link."""
    refuse_links(path)
    found = status_of(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, nothing where there is none. Raises StoreError where it is a link."""
    if not is_folder(folder):
        return []
    return list(os.scandir(folder))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the plain files in a folder and in those below it, no link among them and none followed."""
    if is_folder(folder):
        for place, _, names in os.walk(folder):
            yield from (
                path
                for name in names
                if (found := status_of(path := Path(place, name))) and stat.S_ISREG(found.st_mode)
            )
