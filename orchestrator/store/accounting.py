"""Sums over the ledger: what the runs cost, how fast they come, whether they are still the same.

They are taken of what an open store keeps of its ledger in memory: no record is read for them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.ledger import CommitRecord
from orchestrator.store.run_store import RunStore

WINDOW_SECONDS = 120.0


def train_seconds(store: RunStore, designs: Iterable[str]) -> float:
    """Return the worker time that the runs of these designs took."""
    return sum(seconds for name in designs for pack in store.summaries(name) for seconds in pack.seconds)


def wall_seconds(store: RunStore, design: str) -> float:
    """Return the time of work on the sweep from a design's first pack to its last, pauses between sessions left out."""
    spans = _spans(_commits(store, design))
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0.0


def working_seconds(store: RunStore) -> float:
    """Return how long at least one pack of any design was being trained, pauses left out."""
    total, reached = 0.0, 0.0
    for started, finished in sorted(_spans(c for name in store.designs for c in _commits(store, name))):
        total += max(0.0, finished - max(started, reached))
        reached = max(reached, finished)
    return total


def _spans(commits: Iterable[CommitRecord]) -> list[tuple[float, float]]:
    """Return from when to when each delivery was worked on, in seconds of work on the sweep."""
    return [(max(0.0, c.clock - c.seconds), c.clock) for c in commits if c.clock is not None]


def recent_rate(store: RunStore) -> float | None:
    """Return runs a second over the last two minutes; None when nothing was finished in them."""
    now = time.time()
    recent = [c for name in store.designs for c in _commits(store, name) if now - c.finished < WINDOW_SECONDS]
    if not recent:
        return None
    return sum(len(c.rows) for c in recent) / max(now - min(c.started for c in recent), 1e-3)


def rows_hash(store: RunStore, design: str) -> str:
    """Return the hash over the hashes of a design's finished rows, in order; a failed row counts as one without a hash."""
    made = hashlib.blake2b(digest_size=16)
    for pack in store.summaries(design):
        rows = zip(pack.rows, pack.hashes, strict=True)
        made.update("".join(f"{row}:{digest};" for row, digest in rows).encode())
    return made.hexdigest()


def made_under(store: RunStore, design: str) -> dict[int, str | None]:
    """Return the id of what each finished row was trained under, None where nobody recorded it."""
    found: dict[int, str | None] = {}
    for pack in store.summaries(design):
        latest = {row: commit.provenance for commit in pack.commits for row in commit.rows}
        found |= {
            row: latest.get(row) for row, digest in zip(pack.rows, pack.hashes, strict=True) if digest is not None
        }
    return found


def as_they_came(store: RunStore, design: str) -> NDArray[np.int64]:
    """Return the finished rows (r,) of a design in the order in which they were delivered."""
    commits = [commit for pack in store.summaries(design) for commit in pack.commits]
    commits.sort(key=lambda commit: (commit.clock or 0.0, commit.finished))
    delivered = {row: place for place, commit in enumerate(commits) for row in commit.rows}  # the last time, if several
    done = [row for pack in store.summaries(design) for row in pack.done()]
    return np.array(sorted(done, key=lambda row: (delivered.get(row, -1), row)), dtype=np.int64)


def failure_lines(store: RunStore) -> list[str]:
    """Return every distinct failure once, with how often it occurred."""
    counts: dict[str, int] = {}
    for name in store.designs:
        for failure in store.failures(name):
            line = f"{name}: {failure.kind}: {failure.message}"
            counts[line] = counts.get(line, 0) + 1
    return [f"{line} ({count} times)" if count > 1 else line for line, count in counts.items()]


def _commits(store: RunStore, design: str) -> list[CommitRecord]:
    # A worker that died alone has no start to tell.
    return [commit for pack in store.summaries(design) for commit in pack.commits if commit.started]
