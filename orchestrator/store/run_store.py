"""The run store: the one place where runs are kept, and the only way to write them.

Layout, guarantees and formats: docs/store.md. What a store promises is spelled out by its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.arrays import create_tree
from orchestrator.store.damage import Damage
from orchestrator.store.design_runs import DesignRuns
from orchestrator.store.durable import folder_at_once, refusing, remove_abandoned, remove_partials
from orchestrator.store.lease import Lease
from orchestrator.store.ledger import DONE, FAILED, PENDING, FailedRun, PackRecord, PackSummary
from orchestrator.store.manifest import FORMAT_VERSION, DesignLayout, Manifest, read_manifest
from orchestrator.store.metadata import write_attributes
from orchestrator.store.paths import SweepPaths
from orchestrator.store.plain_files import is_folder, is_there
from orchestrator.store.verification import verify_pack
from orchestrator.store.work_clock import WorkClock
from workers.errors import StoreError, near
from workers.runs import Checkpoint, Outcome

__all__ = ["DONE", "FAILED", "FORMAT_VERSION", "PENDING", "Damage", "DesignLayout", "FailedRun", "RunStore"]


class RunStore:
    """All runs of a sweep: m runs a design, n training examples, t queries.

    A row counts as done when the ledger says so; every byte that it stands on was on the disk before. One process
    writes at a time; any number may read meanwhile. All methods that write raise StoreError, with one line that names
    the path, when the disk refuses, and nothing that was done before is lost.
    """

    def __init__(self, paths: SweepPaths, manifest: Manifest, lease: Lease | None):
        """Use `create` or `open`."""
        self.paths = paths
        self.is_new = False
        """Whether it was created in this session: what is in it was written just now, by us."""
        self.provenance: str | None = None
        """Id of what the rows that are committed are trained under; whoever trains sets it."""
        self._clock: WorkClock | None = None
        """Runs from `begin_work` on."""
        self._manifest = manifest
        self._lease = lease
        self._designs = {
            layout.name: DesignRuns(paths, manifest, layout, lease is not None) for layout in manifest.designs
        }

    @classmethod
    def create(
        cls,
        paths: SweepPaths,
        *,
        config_hash: str,
        n: int,
        t: int,
        measures: tuple[str, ...],
        designs: Sequence[DesignLayout],
        attributes: Mapping[str, Any] | None = None,
    ) -> RunStore:
        """Create an empty store and open it for writing.

        `attributes` is anything JSON can hold, for the readers of the file. Raises StoreError when there is a store
        already, LeaseError when another live process writes the folder.
        """
        manifest = Manifest(
            config_hash=config_hash,
            n=n,
            t=t,
            measures=measures,
            designs=tuple(designs),
            attributes=dict(attributes or {}),
        )
        manifest.check_names()
        lease = Lease(paths)
        try:
            if is_there(paths.runs):
                raise StoreError(f"{paths.runs} exists already: open it, or choose another folder")
            with folder_at_once(paths.runs, "create") as temporary:
                create_tree(temporary, manifest)
            store = cls(paths, manifest, lease)
            store.is_new = True
            return store
        except BaseException:
            lease.release()
            raise

    @classmethod
    def open(cls, paths: SweepPaths, *, write: bool = False) -> RunStore:
        """Open a store.

        Raises StoreError when there is none, when it is damaged or of a newer format; LeaseError when `write` is asked
        for and another live process is writing.
        """
        if not is_folder(paths.runs):
            raise StoreError(f"{paths.root} holds no runs: there is no {paths.runs.name} in it")
        lease = Lease(paths) if write else None
        try:
            if write:
                with refusing("clean", paths.root):
                    remove_partials(paths.runs, paths.ledger, paths.checkpoints, paths.attributions, paths.pieces)
                    remove_partials(paths.gradients, paths.queries)
                    remove_abandoned(paths.root)  # scores and reports are written there without the lease
            manifest = read_manifest(paths)
            return cls(paths, manifest, lease)
        except BaseException:
            if lease:
                lease.release()
            raise

    def close(self) -> None:
        """Give the lease back; a second call does nothing."""
        self._clock = None
        if self._lease:
            for runs in self._designs.values():
                runs.share()
            self._lease.release()
            self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n(self) -> int:
        """Number of training examples."""
        return self._manifest.n

    @property
    def t(self) -> int:
        """Number of queries."""
        return self._manifest.t

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that every run is recorded through."""
        return self._manifest.measures

    @property
    def designs(self) -> dict[str, DesignLayout]:
        """The designs by name."""
        return {design.name: design for design in self._manifest.designs}

    @property
    def config_hash(self) -> str:
        """Hash of the configuration that the store was created for."""
        return self._manifest.config_hash

    @property
    def attributes(self) -> dict[str, Any]:
        """What `create` was told to keep."""
        return dict(self._manifest.attributes)

    def write_plan(
        self,
        design: str,
        start: int,
        masks: NDArray[np.bool_],
        seeds: NDArray[np.uint32],
        subsets: NDArray[np.int64],
        repeats: NDArray[np.int32],
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Write the plan of the whole pack that begins at row `start`: masks (r, n); seeds, subsets, repeats (r,) each.

        A weighted design has weights (r, n) too, which are not 0 exactly where the masks are True.

        The plan becomes durable, and `planned` true, with the last pack written. A pack may be written again (a repair,
        rows added by `extend`). Raises ValueError for part of a pack, StoreError when earlier rows would change.
        """
        plan: dict[str, NDArray[Any]] = {"masks": masks, "seeds": seeds, "subsets": subsets, "repeats": repeats}
        if weights is not None:
            plan["weights"] = weights
        self._writing(design).planned.write(start, {name: np.asarray(values) for name, values in plan.items()})

    def planned(self, design: str) -> bool:
        """Return whether the plan of the whole design is written and durable; if not, write every pack's again."""
        return self._find(design).planned.is_complete()

    def masks(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Return the subsets of rows start..stop, (r, n) bool. Raises StoreError when they are not what was planned."""
        return self._plan(design, "masks", start, stop)

    def seeds(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint32]:
        """Return the seeds of rows start..stop, (r,) uint32."""
        return self._plan(design, "seeds", start, stop)

    def subsets(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Return which subset of the design each row trains on, (r,) int64."""
        return self._plan(design, "subsets", start, stop)

    def repeats(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """Return which repeat of its subset each row is, (r,) int32."""
        return self._plan(design, "repeats", start, stop)

    def weights(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32] | None:
        """Return the weights of the examples in rows start..stop, (r, n) float32; None for a design without."""
        return self._plan(design, "weights", start, stop) if self._find(design).layout.weighted else None

    def outputs(self, design: str, measure: str, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return one measure of rows start..stop, (r, t) float32; rows that are not done are NaN, whatever lies there.

        Raises StoreError, naming the file and the remedy, when a done row is not what was written: its subset, its seed or its
        outputs through any measure.
        """
        if measure not in self.measures:
            raise StoreError(f"{self.paths.runs} has no measure {measure!r}: {near(measure, list(self.measures))}")
        found = self._find(design)
        return found.rows.outputs(measure, *_span(found.layout, start, stop))

    def commit(
        self, design: str, pack: int, outcomes: Sequence[Outcome], *, worker: str, started: float, seconds: float
    ) -> None:
        """Keep the outcomes of some or all rows of a pack; on return they are durable.

        Done rows of the pack stay, their hashes checked first. `started` is Unix time and `seconds` how long `worker`
        had the pack. Raises ValueError for rows that are elsewhere, done already or incomplete; StoreError when the
        pack's done rows are damaged.
        """
        self._writing(design).commit(
            pack,
            outcomes,
            worker=worker,
            started=started,
            seconds=seconds,
            provenance=self.provenance,
            clock=self._clock.seconds() if self._clock else None,
        )

    def begin_work(self) -> None:
        """Let the time count from here on: whatever is committed in this session says how long was worked up to its end."""
        if not self._clock:
            self._clock = WorkClock(self.worked_seconds())

    def worked_seconds(self) -> float:
        """Return how long the sweep has been worked on, over all sessions: to this moment, or to the last delivery."""
        if self._clock:
            return self._clock.seconds()
        commits = (commit for name in self._designs for pack in self.summaries(name) for commit in pack.commits)
        return max((commit.clock or 0.0 for commit in commits), default=0.0)

    def checkpoints(self, design: str, row: int) -> tuple[Checkpoint, ...]:
        """Return the checkpoints of a row by ascending epoch, none if it is not done.

        Raises ValueError when there is no such row, StoreError when a checkpoint is damaged.
        """
        return self._find(design).checkpoints(row)

    def states(self, design: str, start: int = 0, stop: int | None = None) -> NDArray[np.int8]:
        """Return PENDING, DONE or FAILED of rows start..stop, (r,) int8, as the ledger has it.

        The ledger is looked at once for every question, by a reader; once for all in a `snapshot`; and once for ever by the
        one that holds the lease.
        """
        found = self._find(design)
        return found.ledger.states(*_span(found.layout, start, stop))

    @property
    def has_begun(self) -> bool:
        """Whether any run is done; a failed one is mixed with nothing."""
        return any((self.states(name) == DONE).any() for name in self.designs)

    def finished(self, design: str) -> NDArray[np.int64]:
        """Return the done rows, ascending, for whoever computes from them.

        Raises StoreError, naming the file and the remedy, when there were more, whose ledger record is lost.
        """
        found = self._find(design)
        with found.ledger.snapshot():
            found.rows.refuse_lost(0, found.layout.runs)
            return np.flatnonzero(found.ledger.states() == DONE)

    def lost(self, design: str) -> list[Damage]:
        """Return the packs that were committed and have no ledger record: their rows count as pending."""
        return self._find(design).rows.lost()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer every question inside as of one moment, with one look at the ledger of each design that is asked for."""
        with ExitStack() as stack:
            for runs in self._designs.values():
                stack.enter_context(runs.ledger.snapshot())
            yield

    def failures(self, design: str) -> list[FailedRun]:
        """Return the failed runs, by row."""
        return self._find(design).ledger.failures()

    def summaries(self, design: str) -> list[PackSummary]:
        """Return what the ledger says of every pack that it has a record of, by pack: kept in memory, not read anew."""
        return self._find(design).ledger.summaries()

    def record(self, design: str, pack: int) -> PackRecord:
        """Return the ledger's record of a pack, read now: who delivered which rows, when, in what time.

        One that nothing was delivered of has an empty record. Raises ValueError when there is no such pack, StoreError when the
        record is damaged.
        """
        found = self._find(design)
        found.layout.rows(pack)
        return found.ledger.record(pack)

    def forget(self, design: str, rows: Iterable[int]) -> None:
        """Make rows pending, to be trained again; with them all rows of a pack whose ledger record is damaged."""
        self._writing(design).forget(int(row) for row in rows)

    def verify(self, design: str, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
        """Read everything of a design and return what is not as it was written: plan, outputs, checkpoints, ledger.

        Where the plan of a pack is damaged, its outputs' hashes cannot be checked: write the plan, then verify again.
        `progress` is told (packs checked, packs in all).
        """
        runs = self._find(design)
        found: list[Damage] = []
        for pack in range(runs.layout.packs):
            found += verify_pack(runs, pack)
            if progress:
                progress(pack + 1, runs.layout.packs)
        return found

    def extend(self, design: str, runs: int) -> None:
        """Let a design have more rows. Present ones stay; the plan of every pack with new ones is to be written."""
        grown = self._writing(design)
        if runs < grown.layout.runs:
            raise StoreError(f"design {design!r} has {grown.layout.runs} runs: it cannot be cut to {runs}")
        layout = replace(grown.layout, runs=runs)
        # The arrays first: the manifest decides how many rows count, and must never promise more than there are.
        grown.grow(layout)
        designs = tuple(layout if old.name == design else old for old in self._manifest.designs)
        manifest = self._manifest.model_copy(update={"designs": designs})
        write_attributes(self.paths.runs, manifest.model_dump(mode="json"))
        self._manifest = manifest
        grown.resized(layout)

    def _find(self, design: str) -> DesignRuns:
        if design not in self._designs:
            raise StoreError(f"{self.paths.runs} has no design {design!r}: {near(design, list(self._designs))}")
        return self._designs[design]

    def _writing(self, design: str) -> DesignRuns:
        if not self._lease:
            raise StoreError(f"{self.paths.runs} is not open for writing")
        return self._find(design)

    def _plan(self, design: str, name: str, start: int, stop: int | None) -> NDArray[Any]:
        found = self._find(design)
        return found.rows.plan(name, *_span(found.layout, start, stop))


def _span(layout: DesignLayout, start: int, stop: int | None) -> tuple[int, int]:
    """Return checked bounds of a stretch of rows."""
    last = layout.runs if stop is None else stop
    if not 0 <= start <= last <= layout.runs:
        raise ValueError(f"design {layout.name!r} has rows 0..{layout.runs - 1}, not {start}..{last - 1}")
    return start, last
