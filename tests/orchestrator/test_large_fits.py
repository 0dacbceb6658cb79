"""Datamodels of runs that are read from the store block by block, in pieces, here and on Ray."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators.lasso import pieces
from estimators.lasso.cost import LAPTOP, fit_cost
from estimators.lasso.settings import Settings
from orchestrator.attribution import evidence
from orchestrator.attribution.evidence import load_runs
from orchestrator.attribution.lazy_runs import LazyRuns
from orchestrator.imports.survey import Request
from orchestrator.stages.attribute import attribute
from orchestrator.stages.import_runs import import_runs
from orchestrator.store.attributions import read_attribution
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError

M, N, T = 120, 16, 10
EXACT = ("estimators={}", "estimators.datamodel.precision=float64", "estimators.datamodel.tolerance=1e-10")


def write_runs(folder: Path, m: int, n: int, t: int, failed: bool = True) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    masks = rng.random((m, n)) < 0.5
    outputs = (masks[:, :5] @ rng.normal(size=(5, t)) + 0.3 * rng.normal(size=(m, t))).astype(np.float32)
    if failed:
        outputs[::17] = np.nan
    np.save(folder / "masks.npy", masks)
    np.save(folder / "outputs.npy", outputs)


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    """sweep(name, *overrides) imports the same runs into tmp_path/name."""
    write_runs(tmp_path / "source", M, N, T)

    def make(name: str, *overrides: str) -> Sweep:
        request = Request(tmp_path / "source", holdout=0.0, overrides=(*EXACT, *overrides))
        import_runs(request, tmp_path / name)
        return Sweep.at(tmp_path / name)

    return make


def tight(queries: float) -> str:
    """Return the budget in which so many queries fit at once."""
    settings = Settings(precision="float64", tolerance=1e-10, threads=1)
    one = fit_cost(M - 8, N, T, settings, replace(LAPTOP, cores=1))
    return f"estimators.datamodel.memory_gb={(one.shared_memory + queries * one.memory_per_query) / 2**30}"


ONE_THREAD = "estimators.datamodel.threads=1"


def attributed(sweep: Sweep) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    with RunStore.open(sweep.paths, write=True) as store:
        attribute(sweep, store, say=said.append)
    return read_attribution(sweep.paths, "datamodel").values, said


def test_a_large_design_is_read_block_by_block(sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    made = sweep("sweep")
    with RunStore.open(made.paths) as store:
        held = load_runs(made, store, "fit", "margin")
        monkeypatch.setattr(evidence, "IN_MEMORY", 0)
        stored = load_runs(made, store, "fit", "margin")
    assert isinstance(stored, LazyRuns)
    assert not isinstance(held, LazyRuns)
    assert len(held.subsets) == M - 8
    for first, second in zip(held.blocks(7, 3, 50), pickle.loads(pickle.dumps(stored)).blocks(7, 3, 50), strict=True):
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
    assert not stored._whole
    assert stored.masks is stored.masks
    for name in ("masks", "outputs", "subsets", "repeats"):
        assert np.array_equal(getattr(held, name), getattr(stored, name))
    assert not pickle.loads(pickle.dumps(stored))._whole
    other = stored.with_outputs(stored.outputs[:, :1])
    assert next(other.blocks(5))[1].shape == (5, 1)


def test_in_memory_and_out_of_core_agree(sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, said = attributed(sweep("memory", ONE_THREAD))
    assert not said
    monkeypatch.setattr(evidence, "IN_MEMORY", 0)
    streamed, _ = attributed(sweep("streamed", ONE_THREAD))
    assert np.array_equal(streamed, in_memory)
    cut = sweep("cut", ONE_THREAD, tight(2.5))
    in_pieces, said = attributed(cut)
    np.testing.assert_allclose(in_pieces, in_memory, rtol=1e-6, atol=1e-7)
    assert "5 blocks of 2 queries" in said[-1]
    assert not cut.paths.pieces.exists()


@pytest.mark.slow
def test_on_ray_it_is_the_same(sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, ray_started: None) -> None:
    in_memory, _ = attributed(sweep("memory", ONE_THREAD))
    monkeypatch.setattr(evidence, "IN_MEMORY", 0)
    monkeypatch.setattr(pieces, "GRAM_OPERATIONS", 1e4)
    on_ray, _ = attributed(sweep("ray", ONE_THREAD, tight(2.5)))
    np.testing.assert_allclose(on_ray, in_memory, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_what_fails_on_ray_is_told_as_it_would_be_here(
    sweep: Callable[..., Sweep], ray_started: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "IN_MEMORY", 0)
    made = sweep("ray", ONE_THREAD, tight(2.5))
    # The outputs are read by the workers; the masks by the driver, too.
    chunk = next((made.paths.runs / "fit" / "outputs").glob("*/c.0.*"))
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with RunStore.open(made.paths, write=True) as store, pytest.raises(StoreError) as told:
        attribute(made, store)
    assert str(told.value).startswith(f"{chunk} is damaged: ")
    assert "\n" not in str(told.value)


def test_an_interrupted_fit_goes_on_with_the_blocks_that_lack(
    sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, fitted, original = sweep("sweep", ONE_THREAD, tight(2.5)), [], pieces.fit_queries

    def dying(shared: Any, queries: tuple[int, int]) -> Any:
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(queries)
        return original(shared, queries)

    monkeypatch.setattr(pieces, "fit_queries", dying)
    with pytest.raises(KeyboardInterrupt):
        attributed(made)
    assert fitted == [(0, 2), (2, 4)]
    kept = {path.name for path in made.paths.pieces.glob("datamodel/*/*")}
    assert kept == {"grams", "queries-0-2", "queries-2-4"}
    monkeypatch.setattr(pieces, "gram_of", None)
    fitted.clear()
    monkeypatch.setattr(
        pieces, "fit_queries", lambda shared, queries: fitted.append(queries) or original(shared, queries)
    )
    resumed, _ = attributed(made)
    assert fitted == [(4, 6), (6, 8), (8, 10)]
    assert not made.paths.pieces.exists()
    np.testing.assert_allclose(resumed, attributed(sweep("other", ONE_THREAD))[0], rtol=1e-6, atol=1e-7)


def test_pieces_of_another_fit_are_not_taken(sweep: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    made = sweep("sweep", ONE_THREAD, tight(2.5))
    stale = made.paths.pieces / "datamodel" / "0123456789abcdef" / "grams"
    stale.mkdir(parents=True)
    seen: list[bool] = []
    original = pieces.fit_queries
    monkeypatch.setattr(
        pieces, "fit_queries", lambda shared, queries: seen.append(stale.exists()) or original(shared, queries)
    )
    attributed(made)
    assert seen == [False] * 5


PEAK = """
import resource, sys
from orchestrator.attribution import evidence
from orchestrator.stages.attribute import attribute
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError
from pathlib import Path
evidence.IN_MEMORY = 0
warm, sweep = Sweep.at(Path(sys.argv[1])), Sweep.at(Path(sys.argv[2]))
def fit(sweep):
    with RunStore.open(sweep.paths, write=True) as store:
        attribute(sweep, store)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = fit(warm)
print(fit(sweep) - before)
"""


@pytest.mark.slow
def test_the_budget_is_kept(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    """The peak of a fit in pieces, beyond what the process takes anyway, is within its budget; at once it would not be."""
    m, n, t, budget = 1000, 1200, 2400, 0.125
    write_runs(tmp_path / "large", m, n, t, failed=False)
    options = ("estimators={}", f"estimators.datamodel.memory_gb={budget}", "estimators.datamodel.threads=1")
    request = Request(tmp_path / "large", holdout=0.0, overrides=(*options, "estimators.datamodel.patience=1"))
    import_runs(request, tmp_path / "wide")
    settings = Settings(threads=1)
    assert fit_cost(m, n, t, settings, LAPTOP).memory > 1.3 * budget * 2**30
    warm = sweep(
        "warm", ONE_THREAD, tight(2.5), "estimators.datamodel.precision=float32", "estimators.datamodel.tolerance=1e-4"
    )
    command = [sys.executable, "-c", PEAK, str(warm.paths.root), str(SweepPaths(tmp_path / "wide").root)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < budget * 2**30
