"""How a caller follows a retraining, and stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.store.damage import Damage
from orchestrator.sweeps.stopping_record import Stopped
from workers.packed.strategy import Strategy


@dataclass(frozen=True)
class Watch:
    """How the caller follows a retraining and stops it."""

    on_start: Callable[[dict[str, int]], None] = lambda totals: None
    """Called with the runs still to do, by design."""
    on_commit: Callable[[str, int, int], None] = lambda design, done, failed: None
    should_stop: Callable[[], bool] = lambda: False
    patience: Callable[[], bool] = lambda: True
    on_strategy: Callable[[Strategy], None] = lambda strategy: None
    """Called with the way in which packs are trained, where the driver knows it."""
    on_damage: Callable[[Damage], None] = lambda damage: None
    """Called for everything damaged that was found and will be trained again."""
    on_stop: Callable[[Stopped], None] = lambda stopped: None
    """Called for every design that is drawn from no more: when its criterion is met, or before anything is launched if it was."""
