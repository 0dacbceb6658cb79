"""What this machine has: cores, memory, a folder to keep things in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers.errors import ConfigError

if TYPE_CHECKING:
    import torch


_GROUP = Path("/sys/fs/cgroup")
"""Where the limits of this process's control group are told (cgroup v2)."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def cache_folder(part: str = "") -> Path:
    """Return the folder of what is kept for this user, or a part of it, made if need be.

    It is `COUNTERFACTORY_CACHE`, or in the user's cache folder. Raises ConfigError when it cannot be written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("COUNTERFACTORY_CACHE") or Path(base) / "counterfactory") / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write the cache folder {folder}: {error.strerror}; name another in COUNTERFACTORY_CACHE"
        ) from error
    return folder


def total_bytes() -> int:
    """Return this machine's memory, or the limit that a control group sets to this process where that is less."""
    physical, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _number(_GROUP / "memory.max")
    return physical if limit is None else min(physical, limit)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or what this process may still allocate on the machine."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = _meminfo()
    limit, used = (_number(_GROUP / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used))


def _meminfo() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _number(path: Path) -> int | None:
    """Return the number in a control group's file; None where there is no such limit."""
    text = path.read_text().strip() if path.exists() else "max"
    return None if text == "max" else int(text)
