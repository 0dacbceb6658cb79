"""What is damaged is found and made pending again, before anything is trained."""

from __future__ import annotations

from orchestrator.retraining.watch import Watch
from orchestrator.store.damage import Damage
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.plan import DesignPlan


class StoppedError(Exception):
    """The watch said so while the store was being read."""


def mend(store: RunStore, plans: dict[str, DesignPlan], watch: Watch) -> None:
    """Find rows whose bytes no longer agree with the ledger; forget them, so that they are trained again.

    Damaged plan arrays are written anew, the configuration decides what is in them; outputs can only be checked after that.
    """
    if store.is_new:
        return
    for name, plan in plans.items():
        damages = _verify(store, name, watch)
        replanned = [damage for damage in damages if damage.what == "masks"]
        for damage in replanned:
            watch.on_damage(damage)
            block = plan.rows(*plan.span(damage.pack))
            store.write_plan(name, block.start, block.masks, block.seeds, block.subsets, block.repeats, block.weights)
        for damage in _verify(store, name, watch) if replanned else damages:
            watch.on_damage(damage)
            store.forget(name, damage.rows)


def _verify(store: RunStore, design: str, watch: Watch) -> list[Damage]:
    def between_packs(checked: int, packs: int) -> None:
        if watch.should_stop():
            raise StoppedError

    return store.verify(design, between_packs)
