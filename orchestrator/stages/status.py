"""How a sweep stands: counts, rate, failures, time left; also while another process is running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.attribution.standing import why_changed
from orchestrator.retraining.counts import finished
from orchestrator.scoring.stale import stale_scores
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions
from orchestrator.store.lease import holder
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.absent import absent
from orchestrator.sweeps.stopping_record import Stopped, stopped_designs
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError


@dataclass(frozen=True)
class Status:
    """A sweep at one moment."""

    folder: str
    running: dict[str, Any] | None
    """Who is writing it now (pid, host, started), if anybody."""
    designs: dict[str, dict[str, int]]
    done: int
    failed: int
    pending: int
    stopped: tuple[Stopped, ...]
    """Designs that are drawn from no more, for their criterion is met."""
    rate: float | None
    """Runs a second over the last two minutes of work; None when nothing was finished lately."""
    seconds_left: float | None
    damages: tuple[str, ...]
    """Records of the ledger that are lost, whose rows count as pending, and a table of scores that makes no sense; `verify` looks
    for all other damage."""
    failures: tuple[str, ...]
    """Every distinct failure once, with how often it occurred."""
    attributions: tuple[str, ...]
    stale: dict[str, str]
    """Attributions that were computed from other rows, or by other source, than what is there, and what is known of it."""
    stale_scores: dict[str, str]
    """Attributions whose scores were taken of others than those that are there, and what is known of it."""
    absent: dict[str, str]
    """Keys of estimators and designs that are not here, with what follows and the remedy."""

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, for --json."""
        return asdict(self)


def status(sweep: Sweep, store: RunStore) -> Status:
    """Read the ledger and say how the sweep stands; takes no lease and trains nothing."""
    with store.snapshot():
        return _status(sweep, store)


def _status(sweep: Sweep, store: RunStore) -> Status:
    designs = {
        name: dict(zip(("done", "failed", "pending"), counts, strict=True))
        for name, counts in finished(sweep, store).items()
    }
    total = {key: sum(design[key] for design in designs.values()) for key in ("done", "failed", "pending")}
    running = holder(sweep.paths)
    rate = accounting.recent_rate(store) if running else None
    kept = list_attributions(sweep.paths)
    differing = {name: why_changed(sweep, store, name) for name in kept}
    scores, damages = _scores(sweep)
    return Status(
        str(sweep.paths.root),
        running,
        designs,
        total["done"],
        total["failed"],
        total["pending"],
        tuple(stopped_designs(sweep, store).values()),
        rate,
        total["pending"] / rate if rate and total["pending"] else None,
        (*(str(damage) for name in store.designs for damage in store.lost(name)), *damages),
        tuple(accounting.failure_lines(store)),
        tuple(kept),
        {name: why for name, why in differing.items() if why},
        scores,
        absent(sweep.config, sweep.paths),
    )


def _scores(sweep: Sweep) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which scores are stale, and what is wrong with their file."""
    try:
        return stale_scores(sweep), ()
    except StoreError as error:
        return {}, (str(error),)
