"""Stage five: gather what the sweep folder holds and write report.html."""

from __future__ import annotations

from pathlib import Path

from orchestrator.report.collect import collect
from orchestrator.report.page.html import render
from orchestrator.store.durable import write_atomically
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep


def report(sweep: Sweep, store: RunStore) -> Path:
    """Write report.html from what is there by now; return its path."""
    write_atomically(sweep.paths.report, render(collect(sweep, store)).encode(), private=True)
    return sweep.paths.report
