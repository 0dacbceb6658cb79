"""A large fit piece by piece: the Gram matrices once, then a block of queries at a time, each from its own pass over the runs.

A piece holds the Gram matrices and what its own queries need, never the masks of all runs. Finished pieces are kept by the
workspace, which may also do several at once on other machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from estimators.lasso.bootstrap import bootstrap
from estimators.lasso.collect import Block, Grams, Held, Split, collect
from estimators.lasso.cost import FitCost
from estimators.lasso.fit import Fit, fit
from estimators.lasso.settings import Settings
from estimators.lasso.statistics import Statistics
from estimators.workspace import Arrays, Workspace

BLOCKS, BLOCKS_DISTRIBUTED = 8, 64
"""Blocks of queries at least: what is lost with an interrupted one is then a small part of the whole."""
GRAM_OPERATIONS, GRAM_PIECES = 1e13, 16
"""Multiply-adds that are worth a Gram piece of its own (its answer travels), and the most of them."""

Span = tuple[int, int]
"""First, and one after the last."""


class Source(Protocol):
    """Runs that can be read again and again, in blocks; it travels to where a piece is done."""

    def blocks(self, rows: int = ..., start: int = ..., stop: int | None = ...) -> Iterable[Block]:
        """Yield masks (b, n) and outputs (b, t) of the runs start..stop."""


@dataclass(frozen=True)
class FitJob:
    """What all pieces of a fit share."""

    source: Source
    split: Split
    settings: Settings
    n: int
    t: int

    def blocks(self, queries: Span) -> Iterator[Block]:
        """Start a pass over the runs as some queries see them."""
        for masks, outputs in self.source.blocks():
            yield masks, outputs[:, slice(*queries)]


def fit_in_pieces(job: FitJob, expected: FitCost, workspace: Workspace) -> Fit:
    """Fit all queries within the forecast's budget; the same as a fit at once, up to rounding of the cross products."""
    expected = cut(expected, workspace)
    grams = _grams(job, expected, workspace)
    starts = range(0, job.t, expected.block)
    names = {(a, b): f"queries-{a}-{b}" for a in starts for b in [min(a + expected.block, job.t)]}
    missing = [span for span, name in names.items() if workspace.kept(name) is None]
    for span, piece in workspace.map(fit_queries, (job, grams), missing):
        workspace.keep(names[span], piece)
    del grams
    return _assemble(job, names, workspace)


def cut(expected: FitCost, workspace: Workspace) -> FitCost:
    """Return the forecast of the fit in the blocks of queries in which it is done."""
    return expected.cut(BLOCKS_DISTRIBUTED if workspace.distributed else BLOCKS)


def _grams(job: FitJob, expected: FitCost, workspace: Workspace) -> Grams:
    """Return the Gram matrices and held-out masks: kept ones, or the sums over all runs."""
    kept = workspace.kept("grams")
    if kept is None:
        kept = _sum_grams(job, expected, workspace)
        workspace.keep("grams", kept)
    parts = [job.split.parts == fold for fold in range(job.split.folds)]
    held = []
    for fold, part in enumerate(parts):
        none = np.empty((int(part.sum()), 0))
        held.append(Held.of(kept[f"bits-{fold}"], job.n, none, job.split.subsets[part], job.settings.dtype).masks)
    return Grams(tuple(kept["grams"]), tuple(held))


def _sum_grams(job: FitJob, expected: FitCost, workspace: Workspace) -> Arrays:
    m = len(job.split.parts)
    count = int(min(max(expected.gram_a_pass / GRAM_OPERATIONS, 1), GRAM_PIECES)) if workspace.distributed else 1
    cuts = np.linspace(0, m, count + 1).astype(int).tolist()
    total: NDArray[np.int32] | None = None
    bits: dict[Span, Arrays] = {}
    for span, piece in workspace.map(gram_of, job, list(pairwise(cuts))):
        grams = piece["grams"]
        total = grams if total is None else np.add(total, grams, out=total if total.flags.writeable else None)
        bits[span] = {name: array for name, array in piece.items() if name != "grams"}
    assert total is not None
    names = [f"bits-{fold}" for fold in range(job.split.folds)]
    return {"grams": total, **{name: np.concatenate([bits[span][name] for span in sorted(bits)]) for name in names}}


def gram_of(job: FitJob, span: Span) -> Arrays:
    """Return of the runs of a span the exact Gram matrices, (1 + folds, n, n), and every fold's masks as bits."""
    folds, row = job.split.folds, span[0]
    grams = np.zeros((1 + folds, job.n, job.n), np.int32)
    bits: list[list[NDArray[np.uint8]]] = [[np.empty((0, -(-job.n // 8)), np.uint8)] for _ in range(folds)]
    statistics = [Statistics.empty(job.n, np.zeros(0), gram) for gram in grams]
    for masks, outputs in job.source.blocks(start=span[0], stop=span[1]):
        labels = job.split.parts[row : row + len(masks)]
        row += len(masks)
        for label in np.unique(labels):
            chosen = masks[labels == label]
            statistics[label + 1].accumulate(chosen, outputs[labels == label, :0], device=job.settings.device)
            if label >= 0:
                bits[label].append(np.packbits(chosen, axis=1))
    return {"grams": grams, **{f"bits-{fold}": np.concatenate(parts) for fold, parts in enumerate(bits)}}


def fit_queries(shared: tuple[FitJob, Grams], queries: Span) -> Arrays:
    """Return the fit of some queries as arrays."""
    job, grams = shared
    collected = collect(job.blocks(queries), job.split, job.settings, grams)
    found = fit(collected, job.settings)
    arrays: dict[str, NDArray[Any]] = {name: getattr(found, name) for name in _PER_QUERY}
    if job.settings.bootstrap:
        again = bootstrap(lambda: job.blocks(queries), job.split, found, collected.rest.shift, job.settings)
        arrays |= dict(zip(_BOOTSTRAPPED, again, strict=True))
    return arrays


_PER_QUERY = (
    *("coefficients", "intercepts", "penalties", "positions", "gaps", "converged"),
    *("heldout_r2", "heldout_spearman", "nonzeros"),
)
"""Arrays of a fit whose first axis is the queries."""
_BOOTSTRAPPED = ("standard_errors", "frequencies")


def _assemble(job: FitJob, names: dict[Span, str], workspace: Workspace) -> Fit:
    """Put the pieces together; what has a column an example is laid out as (n, t), which is how an attribution is kept."""
    whole: dict[str, NDArray[Any]] = {}
    for (start, stop), name in names.items():
        piece = workspace.kept(name)
        assert piece is not None
        for key, values in piece.items():
            if key not in whole:
                shape = (job.n, job.t) if values.ndim == 2 else (job.t,)
                whole[key] = np.empty(shape, values.dtype)
            if values.ndim == 2:
                whole[key][:, start:stop] = values.T
            else:
                whole[key][start:stop] = values
    return Fit(split=job.split, **{key: values.T if values.ndim == 2 else values for key, values in whole.items()})
