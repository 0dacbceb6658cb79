"""How many runs are done, failed, and still to do."""

from __future__ import annotations

from orchestrator.store.ledger import DONE, FAILED, PENDING
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.stopping_record import read_stopping
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.truncation import skipped


def finished(sweep: Sweep, store: RunStore) -> dict[str, tuple[int, int, int]]:
    """Return done, failed and pending runs of every design; prefixes that truncation leaves out are not
    pending, and nothing is of a design whose stopping criterion is met. The configuration and the store say it all."""
    counts = {}
    curves = read_stopping(sweep)
    with store.snapshot():
        for name in sweep.config.designs:
            states = store.states(name)
            stop, curve = sweep.config.stop.get(name), curves.get(name)
            stopped = stop is not None and curve is not None and curve.met and curve.criterion == stop.when
            pending = (states == PENDING) & ~skipped(sweep.config, store, name) & (not stopped)
            counts[name] = (int((states == DONE).sum()), int((states == FAILED).sum()), int(pending.sum()))
    return counts
