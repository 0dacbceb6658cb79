"""A fit in pieces is the fit at once, whatever the cut, and goes on where it was interrupted."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from estimators.evidence import Evidence, Runs
from estimators.lasso import pieces
from estimators.lasso.collect import Split
from estimators.lasso.cost import LAPTOP, fit_cost
from estimators.lasso.pieces import FitJob, fit_in_pieces
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from estimators.retraining_based.datamodel import DatamodelEstimator
from estimators.workspace import Arrays, Workspace
from workers.errors import ConfigError

M, N, T = 160, 20, 9
EXACT: dict[str, Any] = {"precision": "float64", "tolerance": 1e-10, "threads": 1}


@pytest.fixture
def runs() -> Runs:
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((M // 2, N)) < 0.5, 2, axis=0)
    outputs = masks[:, :6] @ rng.normal(size=(6, T)) + 0.3 * rng.normal(size=(M, T))
    subsets = np.arange(M) // 2
    return Runs("fit", "explicit", "margin", masks, outputs.astype(np.float32), subsets, np.arange(M) % 2)


@dataclass
class Spread(Workspace):
    """Several machines, whose pieces come back in any order; one that is told to dies before it has done so many."""

    distributed: bool = True
    dies_after: int | None = None
    done: list[Any] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _kept: dict[str, Arrays] = field(default_factory=dict)

    def map(self, work: Any, shared: Any, items: Any) -> Iterator[tuple[Any, Arrays]]:
        for item in reversed(items):
            if self.dies_after is not None and len(self.done) >= self.dies_after:
                raise KeyboardInterrupt
            self.done.append((work.__name__, item))
            yield item, work(shared, item)

    def say(self, line: str) -> None:
        self.said.append(line)


def in_pieces(runs: Runs, settings: Settings, workspace: Workspace, memory: int = 2**30) -> pieces.Fit:
    job = FitJob(runs, Split.draw(runs.subsets, settings, 5), settings, N, T)
    return fit_in_pieces(job, fit_cost(M, N, T, settings, replace(LAPTOP, memory=memory)), workspace)


OPTIONS: list[dict[str, Any]] = [
    *({}, {"folds": 3}, {"bootstrap": 3}, {"penalty": "ridge"}, {"standardize": True, "ridge": 0.01}),
    *({"penalty": "ridge", "bootstrap": 2}, {"standardize": True, "bootstrap": 2}),
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("workspace", [Workspace, Spread])
def test_pieces_are_the_whole(
    runs: Runs, options: dict[str, Any], workspace: type[Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "GRAM_OPERATIONS", 1.0)
    monkeypatch.setattr(pieces, "BLOCKS_DISTRIBUTED", 3)
    settings = Settings(**{**EXACT, **options})
    at_once = fit_blocks(runs.blocks, runs.subsets, settings, 5)
    found = in_pieces(runs, settings, workspace())
    for name in ("coefficients", "intercepts", "penalties", "heldout_r2", "heldout_spearman"):
        np.testing.assert_allclose(getattr(found, name), getattr(at_once, name), rtol=1e-6, atol=1e-8, err_msg=name)
    assert np.array_equal(found.positions, at_once.positions)
    assert np.array_equal(found.nonzeros, at_once.nonzeros)
    if settings.bootstrap:
        np.testing.assert_allclose(found.standard_errors, at_once.standard_errors, rtol=1e-5, atol=1e-8)


def test_one_piece_is_the_whole_bit_by_bit(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BLOCKS", 1)
    at_once, found = fit_blocks(runs.blocks, runs.subsets, Settings(), 5), in_pieces(runs, Settings(), Workspace())
    assert np.array_equal(found.coefficients, at_once.coefficients)
    assert np.array_equal(found.intercepts, at_once.intercepts)


def test_an_interrupted_fit_goes_on(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BLOCKS_DISTRIBUTED", 3)
    settings, workspace = Settings(**EXACT), Spread(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        in_pieces(runs, settings, workspace)
    assert workspace.done == [("gram_of", (0, M)), ("fit_queries", (6, 9)), ("fit_queries", (3, 6))]
    workspace.dies_after = None
    workspace.done.clear()
    found = in_pieces(runs, settings, workspace)
    assert workspace.done == [("fit_queries", (0, 3))]
    assert np.array_equal(found.coefficients, in_pieces(runs, settings, Spread()).coefficients)


@pytest.mark.parametrize("resamples", [0, 3])
def test_the_runs_are_read_as_often_as_was_forecast(
    runs: Runs, resamples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    blocks = Runs.blocks
    monkeypatch.setattr(Runs, "blocks", lambda self, *a, **k: passes.append(k) or blocks(self, *a, **k))
    settings, workspace = Settings(bootstrap=resamples), Workspace()
    in_pieces(runs, settings, workspace)
    expected = pieces.cut(fit_cost(M, N, T, settings, LAPTOP), workspace)
    assert len(passes) == expected.passes


def room_for(queries: float) -> float:
    """Return the GiB that so many queries need at once."""
    whole = fit_cost(M, N, T, Settings(), replace(LAPTOP, cores=1))
    return (whole.shared_memory + queries * whole.memory_per_query) / 2**30


def test_a_small_budget_cuts_and_a_smaller_one_is_refused(runs: Runs) -> None:
    tight = room_for(2.5)
    workspace = Spread(distributed=False)
    evidence = Evidence(N, T, "margin", {"fit": runs}, seed=5, workspace=workspace)
    got = DatamodelEstimator(threads=1, memory_gb=tight).attribute(evidence)
    assert max(stop - start for _, (start, stop) in workspace.done[1:]) == 2
    assert "budget" in workspace.said[-1]
    assert "blocks of 2 queries" in workspace.said[-1]
    usual = DatamodelEstimator(threads=1).attribute(replace(evidence, workspace=Workspace()))
    np.testing.assert_allclose(got.values, usual.values, atol=1e-4)
    assert got.findings.summary.startswith("9 queries")
    for action in ("attribute", "check"):
        with pytest.raises(ConfigError, match="raise memory_gb"):
            getattr(DatamodelEstimator(memory_gb=1e-6), action)(evidence)


def test_the_learning_curve_comes_with_a_cheap_fit_and_when_asked(runs: Runs) -> None:
    evidence = Evidence(N, T, "margin", {"fit": runs}, seed=5)
    got = DatamodelEstimator(threads=1, holdout=0.3).attribute(evidence)
    curve = got.findings.learning_curve
    assert curve is not None
    assert curve.measured.shape == (3, len(curve.runs)) == (3, 5)
    assert curve.runs[-1] == 112
    assert curve.sentence.startswith("another 100 runs would bring")
    assert curve.ahead[-1] == 212
    assert curve.gain[1] <= curve.gain[0] <= curve.gain[2]
    assert curve.seconds > 0
    few = DatamodelEstimator(threads=1).attribute(evidence)
    assert few.findings.learning_curve is None  # 12 held-out subsets
    off = DatamodelEstimator(threads=1, holdout=0.3, learning_curve=False)
    assert off.attribute(evidence).findings.learning_curve is None
    with pytest.raises(ConfigError, match="leave it out"):
        DatamodelEstimator(threads=1, holdout=0.3, learning_curve=True, memory_gb=room_for(2.5)).attribute(evidence)
    with pytest.raises(ValueError, match="penalty: l1 only"):
        DatamodelEstimator(penalty="ridge", learning_curve=True)
