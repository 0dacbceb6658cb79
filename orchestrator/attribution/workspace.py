"""Long work of estimators: done here or on the cluster, its finished pieces kept in the sweep's folder until they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from estimators.workspace import Arrays, Item, Shared, Workspace
from orchestrator.config.schema import RaySection
from orchestrator.execution.ray_pool import map_on_ray
from orchestrator.store.durable import folder_at_once, make_folder, refusing, remove_folders
from orchestrator.store.paths import SweepPaths, check_name
from orchestrator.store.plain_files import entries_of, is_folder, mapped_array


class SweepWorkspace(Workspace):
    """Pieces of one attribution. Those of another fit under its name (other options, other runs) are of no use and removed."""

    def __init__(
        self, paths: SweepPaths, label: str, stamp: str, ray: RaySection, say: Callable[[str], None], part: str = ""
    ):
        """`part` tells apart pieces of the same attribution: where options are tuned, those of each combination."""
        self._part = f"{hashlib.sha256(part.encode()).hexdigest()[:16]}-" if part else ""
        self._label = paths.pieces / check_name(label)
        self._folder = self._label / hashlib.sha256(stamp.encode()).hexdigest()[:16]
        self._ray, self._say = ray, say
        self.distributed = ray.address != "local"
        self.threads = max(1, int(ray.num_cpus)) if self.distributed else None

    @property
    def memory(self) -> int:
        """Bytes a piece may take: what a pack asks of a cluster's node, else half of this machine's."""
        return self._ray.memory if self.distributed and self._ray.memory else super().memory

    def map(
        self, work: Callable[[Shared, Item], Arrays], shared: Shared, items: Sequence[Item]
    ) -> Iterator[tuple[Item, Arrays]]:
        """Yield every item with work(shared, item): one after the other here, in any order from a cluster."""
        if self.distributed:
            return map_on_ray(work, shared, items, self._ray)
        return super().map(work, shared, items)

    def keep(self, name: str, arrays: Arrays) -> None:
        """Write a piece: it is there wholly or not at all."""
        self._remove_others()
        with folder_at_once(self._folder / f"{self._part}{name}") as temporary:
            make_folder(temporary)
            for key, array in arrays.items():
                np.save(temporary / f"{key}.npy", array, allow_pickle=False)

    def kept(self, name: str) -> Arrays | None:
        """Return a finished piece, mapped from its files; None, and that is said, where they are damaged."""
        folder = self._folder / f"{self._part}{name}"
        if not is_folder(folder):
            return None
        with refusing("read", folder):
            try:
                return {Path(one.name).stem: mapped_array(Path(one)) for one in entries_of(folder)}
            except (ValueError, EOFError):
                self._say(f"{folder} is damaged: it is computed anew")
                return None

    def say(self, line: str) -> None:
        """Tell the user something before long work."""
        self._say(line)

    def clear(self) -> None:
        """Remove all pieces: the attribution is written."""
        with refusing("remove", self._label):
            remove_folders(self._label)
            if is_folder(self._label.parent) and not entries_of(self._label.parent):
                self._label.parent.rmdir()

    def _remove_others(self) -> None:
        with refusing("remove", self._label):
            others = (Path(one) for one in entries_of(self._label))
            remove_folders(*(folder for folder in others if folder != self._folder))
