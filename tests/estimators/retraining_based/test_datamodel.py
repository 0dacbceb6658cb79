from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import r2_score

from estimators import Datamodel
from estimators.evidence import Evidence, Runs
from estimators.lasso import within_budget
from estimators.lasso.collect import blocks_of
from estimators.lasso.cost import GIB, LAPTOP, Machine, fit_cost
from estimators.lasso.curve_cost import curve_cost
from estimators.lasso.pieces import BLOCKS
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from estimators.registry import find
from estimators.retraining_based.datamodel import DatamodelEstimator
from workers.errors import ConfigError, DataError


def runs_of(m: int, n: int, t: int, seeds: int = 1, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((m, n)) < 0.5, seeds, axis=0)
    weights = np.zeros((n, t))
    weights[:4] = rng.normal(size=(4, t)) + 2
    return masks, masks @ weights + 3 + noise * rng.normal(size=(m * seeds, t)), weights


@pytest.fixture
def evidence() -> tuple[Evidence, np.ndarray]:
    masks, outputs, weights = runs_of(200, 30, 3, seeds=2)
    runs = Runs(
        "random half", "subsets", "margin", masks, outputs.astype(np.float32),
        np.repeat(np.arange(200), 2), np.tile(np.arange(2), 200),
    )  # fmt: skip
    return Evidence(30, 3, "margin", {"random half": runs}, seed=7), weights


def test_the_estimator_recovers_sparse_weights_and_their_bias(evidence):
    given, weights = evidence
    got = find("datamodel")().attribute(given)
    assert got.values.shape == (30, 3)
    assert got.values.dtype == np.float32
    assert np.abs(got.values - weights).max() < 0.1
    assert got.bias is not None
    assert np.abs(got.bias - 3).max() < 0.2
    assert got.fitted_on == ("random half",)
    assert got.models == 400
    assert got.details["split_seed"] == 7
    assert len(got.details["heldout_subsets"]) == 30
    assert got.details["unconverged"] == []
    assert min(got.details["heldout_spearman"]) > 0.9


def test_the_estimator_says_which_design_it_misses(evidence):
    with pytest.raises(ConfigError, match="random half"):
        DatamodelEstimator(design="other").attribute(evidence[0])


def test_the_bootstrap_measures_the_spread_over_runs(evidence):
    given, weights = evidence
    got = DatamodelEstimator(bootstrap=60, threads=1).attribute(given)
    assert got.standard_error is not None
    true = weights[:, 0] != 0
    # a coefficient of a balanced binary column with noise .1 and 400 runs: .1 / (.5 * sqrt(400)) = .01
    np.testing.assert_allclose(got.standard_error[true], 0.01, rtol=0.5)
    masks, outputs, _ = runs_of(200, 30, 3)
    model = Datamodel(bootstrap=20).fit(masks, outputs)
    assert (model.frequencies_[:, :4] == 1).all()
    assert model.frequencies_[:, 4:].mean() < 0.9


def test_it_is_a_scikit_learn_regressor():
    masks, outputs, weights = runs_of(150, 12, 2)
    model = clone(Datamodel(tolerance=1e-5, seed=3)).fit(masks.astype(int), outputs)
    assert model.coef_.shape == (2, 12)
    np.testing.assert_allclose(model.coef_, weights.T, atol=0.1)
    np.testing.assert_allclose(model.predict(masks), masks @ model.coef_.T + model.intercept_, atol=1e-5)
    assert model.score(masks, outputs) == r2_score(outputs, model.predict(masks)) > 0.99
    one = Datamodel(tolerance=1e-5, seed=3).fit(masks, outputs[:, 0])
    np.testing.assert_allclose(one.predict(masks), model.predict(masks)[:, 0], atol=1e-6)
    assert "2 queries" in model.fit_.summary()


@pytest.mark.parametrize("options", [{}, {"folds": 3}, {"standardize": True, "ridge": 0.01}, {"penalty": "ridge"}])
def test_the_number_of_threads_and_the_cut_into_blocks_change_nothing(options):
    masks, outputs, _ = runs_of(300, 40, 7, noise=2.0)
    outputs[5:9, 2], outputs[100, 3] = np.nan, np.nan
    options = {"precision": "float64", "tolerance": 1e-11, **options}
    models = [
        Datamodel(threads=threads, **options).fit_blocks(
            lambda rows=rows: blocks_of(masks, outputs, rows), np.arange(300)
        )
        for threads, rows in ((1, 1000), (3, 1000), (1, 37))
    ]
    np.testing.assert_array_equal(models[0].coef_, models[1].coef_)
    np.testing.assert_allclose(models[0].coef_, models[2].coef_, atol=1e-6)
    np.testing.assert_array_equal(models[0].fit_.positions, models[2].fit_.positions)
    np.testing.assert_array_equal(models[0].coef_, Datamodel(threads=1, **options).fit(masks, outputs).coef_)


def test_a_lock_step_fit_is_the_same_fit():
    masks, outputs, _ = runs_of(120, 30, 4, noise=2.0)
    options = {"precision": "float64", "tolerance": 1e-11, "max_sweeps": 100_000, "epsilon": 1e-2}
    cpu = Datamodel(**options).fit(masks, outputs)
    fista = Datamodel(solver="fista", **options).fit(masks, outputs)
    np.testing.assert_array_equal(cpu.fit_.positions, fista.fit_.positions)
    np.testing.assert_allclose(cpu.coef_, fista.coef_, atol=1e-5)


def test_runs_with_equal_masks_are_held_out_together():
    masks, outputs, _ = runs_of(40, 12, 2, seeds=3)
    split = Datamodel().fit(masks, outputs).fit_.split
    for rows in split.parts.reshape(40, 3):
        assert len(set(rows)) == 1


def test_constant_and_missing_outputs_are_told_and_not_hidden():
    masks, outputs, _ = runs_of(100, 10, 3)
    outputs[:, 1] = 5.0
    outputs[::3, 2] = np.nan
    model = Datamodel().fit(masks, outputs.astype(np.float32))
    assert (model.coef_[1] == 0).all()
    np.testing.assert_allclose(model.intercept_[1], 5.0)
    assert np.isnan(model.heldout_r2_[1])
    assert np.isnan(model.heldout_spearman_[1])
    assert model.heldout_spearman_[2] > 0.9


def test_a_query_that_did_not_converge_is_reported():
    masks, outputs, _ = runs_of(60, 40, 2, noise=2.0)
    model = Datamodel(max_sweeps=1, precision="float64", tolerance=1e-9).fit(masks, outputs)
    assert not model.converged_.all()
    assert "did not reach the tolerance" in model.fit_.summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.full((20, 3), 2)}, "60 values that are neither 0 nor 1"),
        ({"masks": np.ones((20, 0))}, r"\(20, 0\)"),
        ({"outputs": np.zeros((19, 2))}, r"\(19, 2\), expected \(20, t\)"),
        ({"subsets": np.arange(3)}, r"\(3,\), expected \(20,\)"),
    ],
)
def test_wrong_data_is_refused_in_one_line(change, message):
    masks, outputs, _ = runs_of(20, 5, 2)
    given = {"masks": masks, "outputs": outputs, **change}
    with pytest.raises(DataError, match=message):
        Datamodel().fit(given["masks"], given["outputs"], given.get("subsets"))


def test_wrong_options_are_refused_in_one_line():
    masks, outputs, _ = runs_of(20, 5, 2)
    for options, message in (({"holdout": 2}, "holdout.*found 2"), ({"tolerance": 1e-9}, "precision: float64")):
        with pytest.raises(ConfigError, match=message):
            Datamodel(**options).fit(masks, outputs)
    with pytest.raises(DataError, match="4 columns"):
        Datamodel().fit(masks, outputs).predict(masks[:, :4])


def test_blocks_are_read_once_for_a_fit():
    masks, outputs, _ = runs_of(50, 6, 2)
    passes = []

    def blocks():
        passes.append(1)
        yield from blocks_of(masks, outputs, 10)

    fit_blocks(blocks, np.arange(50), Settings(), 0)
    assert len(passes) == 1


def evidence_to_come(m: int, n: int, t: int) -> Evidence:
    """Evidence of so many runs, with nothing in them."""
    masks, outputs = np.broadcast_to(np.False_, (m, n)), np.broadcast_to(np.float32(0), (m, t))
    runs = Runs("fit", "bernoulli", "margin", masks, outputs, subsets=np.arange(m), repeats=np.zeros(m, np.int64))
    return Evidence(n, t, "margin", {"fit": runs})


@pytest.mark.parametrize("curve", [False, True])
def test_a_large_fit_foresees_its_time_from_measured_rates(monkeypatch: pytest.MonkeyPatch, curve: bool) -> None:
    asked = []

    def rates(memory: int, threads: int | None = None) -> Machine:
        asked.append((memory, threads))
        return replace(LAPTOP, memory=memory, descent_rate=LAPTOP.descent_rate / 1e3)

    monkeypatch.setattr(within_budget, "this_machine", rates)
    m, n, t = 40_000, 5_000, 2_000
    model = DatamodelEstimator(memory_gb=8, threads=2, learning_curve=curve)
    seconds = model.foresee(evidence_to_come(m, n, t))
    machine = replace(LAPTOP, memory=8 * GIB, descent_rate=LAPTOP.descent_rate / 1e3)
    settings = Settings(threads=2)
    fit = fit_cost(m, n, t, settings, machine).cut(BLOCKS).seconds
    expected = fit + (curve_cost(m, n, t, settings, machine).seconds if curve else 0.0)
    assert seconds == pytest.approx(expected)
    assert asked == [(8 * GIB, 2)]


def test_a_small_fit_is_to_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within_budget, "this_machine", lambda *_: pytest.fail("measured for nothing"))
    assert DatamodelEstimator().foresee(evidence_to_come(500, 100, 20)) is None
