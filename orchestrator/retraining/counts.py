"""How many runs are done, failed, and still to do."""

from __future__ import annotations

from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.stopping_record import stopped_designs
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.truncation import skipped


def finished(sweep: Sweep, store: RunStore) -> dict[str, tuple[int, int, int]]:
    """Return done, failed and pending runs of every design; prefixes that truncation leaves out are not
    pending, and nothing is of a design whose stopping criterion is met. The configuration and the store say it all."""
    counts = {}
    with store.snapshot():
        stopped = stopped_designs(sweep, store)
        for name in sweep.config.designs:
            states = store.states(name)
            pending = (states == PENDING) & ~skipped(sweep.config, store, name) & (name not in stopped)
            counts[name] = (int((states == DONE).sum()), int((states == FAILED).sum()), int(pending.sum()))
    return counts
