"""Finding damage: everything of a pack read, and compared with what the ledger says was written."""

from __future__ import annotations

from orchestrator.store.checked_rows import Examined
from orchestrator.store.checkpoints import checkpoint_hash
from orchestrator.store.damage import Damage
from orchestrator.store.design_runs import DesignRuns
from orchestrator.store.ledger import DamagedRecord, PackSummary


def verify_pack(runs: DesignRuns, pack: int) -> list[Damage]:
    """Return all damage in one pack. Raises StoreError when the disk refuses to be read."""
    found: list[Damage] = []
    summary: PackSummary | None = None
    try:
        summary = runs.ledger.read(pack)
        found += [runs.rows.lost_record(pack)] if runs.ledger.is_lost(pack) else []
    except DamagedRecord:
        rows = tuple(runs.layout.rows(pack))
        found.append(Damage(runs.layout.name, pack, rows, runs.ledger.path(pack), "ledger", "damaged"))
    done = summary is not None and summary.done()
    plan = runs.rows.examine_plan(pack) if done or pack in runs.planned.packs else Examined({}, ())
    found += plan.damages
    if summary is not None and done:
        found += runs.rows.examine_outputs(pack, summary, None if plan.damages else plan.chunks).damages
        found += _verify_checkpoints(runs, summary)
    return found


def _verify_checkpoints(runs: DesignRuns, summary: PackSummary) -> list[Damage]:
    """Check each checkpoint file of the done rows against its hash."""
    found = []
    for row, files in summary.checkpoints.items():
        for epoch, expected in files.items():
            path = runs.paths.checkpoint(runs.layout.name, row, epoch)
            if (actual := checkpoint_hash(path)) != expected:
                reason = "missing" if actual is None else "not what was written"
                found.append(Damage(runs.layout.name, summary.pack, (row,), path, "checkpoint", reason))
    return found
