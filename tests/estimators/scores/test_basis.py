"""What a score stands on: counted from the runs, and carried by every score on runs."""

import math

import numpy as np
import pytest

from estimators.evidence import Runs
from estimators.scores import Basis, lds, loo_correlation
from estimators.scores.basis import constant, kept


def runs_of_sizes(sizes, seeds, n=10, order="own"):
    """Runs of subsets of these sizes, each with so many seeds."""
    masks = np.array([np.arange(n) < size for size in sizes])
    subsets = np.repeat(np.arange(len(sizes)), seeds)
    repeats = np.concatenate([np.arange(k) for k in seeds]).astype(int)
    outputs = np.random.default_rng(0).normal(size=(len(subsets), 3)).astype(np.float32)
    return Runs("held", "subsets", "margin", masks[subsets], outputs, subsets, repeats, order=order)


def test_the_fraction_kept_counts_each_subset_once() -> None:
    assert kept(runs_of_sizes([2, 4], [5, 1])) == pytest.approx(0.3)
    assert math.isnan(kept(runs_of_sizes([2, 4], [0, 0])))


def test_subsets_without_runs_or_with_fewer_seeds_are_counted() -> None:
    basis = Basis.of(runs_of_sizes([5, 5, 5, 5], [3, 2, 3, 1]), planned=7)
    assert (basis.alpha, basis.order) == (0.5, "own")
    assert (basis.subsets_left_out, basis.subsets_with_fewer_seeds) == (3, 2)
    assert math.isnan(Basis.of(runs_of_sizes([5], [1])).subsets_left_out), "nobody said how many were planned"


def test_constant_columns_are_counted() -> None:
    assert constant(np.array([[1.0, 2.0, 3.0], [1.0, 2.5, 3.0]])) == 2


def test_every_score_on_runs_names_its_regime() -> None:
    runs = runs_of_sizes([5, 4, 6, 5], [2, 2, 2, 1], order="shared")
    basis = lds(np.zeros((10, 3)), runs, resamples=0, planned=5).basis
    assert (basis.alpha, basis.order, basis.subsets_left_out, basis.subsets_with_fewer_seeds) == (0.5, "shared", 1, 1)
    assert (basis.queries_left_out, basis.constant_predictions, basis.constant_outputs) == (0, 3, 0)


def test_leaving_one_out_keeps_all_but_one() -> None:
    effects = np.arange(8.0).reshape(4, 2)
    found = loo_correlation(np.ones((20, 2)), effects, np.arange(4), n=20, resamples=0)
    assert found.basis.alpha == 0.95
    assert (found.basis.constant_predictions, found.basis.constant_outputs) == (2, 0)
    assert math.isnan(found.basis.subsets_left_out)
    told = loo_correlation(
        np.ones((20, 2)), effects, np.arange(4), n=20, resamples=0, basis=Basis(0.95, "own", 16, 1)
    ).basis
    assert (told.order, told.subsets_left_out, told.subsets_with_fewer_seeds, told.queries_left_out) == (
        "own",
        16,
        1,
        0,
    )
