"""After attributing: train the sweeps inside the sweep that its removal curves need."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from orchestrator.applications.removal_curves import nested_sweeps
from orchestrator.execution.ray_session import started
from orchestrator.retraining.counts import finished
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True)
class Removed:
    """How one nested sweep stands after this call."""

    name: str
    """Its own name: the sweep's, and whose values decide what is removed."""
    done: int
    """Finished runs, those of former calls included."""
    failed: int
    pending: int
    """Runs still to do, because the training was stopped."""


def train_removals(
    sweep: Sweep,
    train: Callable[[Sweep, RunStore], object] | None = None,
    *,
    retry_failed: bool = False,
    accept_changes: bool = False,
) -> list[Removed]:
    """Train what the removal curves lack, one nested sweep after the other; nothing if the configuration asks for none.

    Every estimator that is to have a curve and has an attribution gets one. `train` retrains one nested sweep in its store, for a
    caller who shows that; by default it is done in silence. Ray is started once for all of them, and not if nothing is to be
    trained.
    """
    stands = []
    with ExitStack() as ray:
        running = False
        for nested in nested_sweeps(sweep):
            with prepare(nested, tells=False, accept_changes=accept_changes) as store:
                if not running and _anything_to_train(nested, store, retry_failed):
                    ray.enter_context(started(sweep.config.ray))
                    running = True
                if train is None:
                    retrain(nested, store, retry_failed=retry_failed)
                else:
                    train(nested, store)
                counts = finished(nested, store).values()
            done, failed, pending = (sum(count[state] for count in counts) for state in range(3))
            stands.append(Removed(nested.config.name, done, failed, pending))
    return stands


def _anything_to_train(nested: Sweep, store: RunStore, retry_failed: bool) -> bool:
    return any(pending or (failed and retry_failed) for _, failed, pending in finished(nested, store).values())
