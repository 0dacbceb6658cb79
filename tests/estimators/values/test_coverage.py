"""The 95% interval of every estimator covers the true value 95% of the time, on analytic games with noisy trainings.

Each check repeats a small sweep with other seeds and counts, for every example, how often its interval holds the truth. The
count must not be less than a binomial one would be in one of 10,000 cases.
"""

import numpy as np
import pytest
from scipy.stats import binom

from estimators.evidence import Evidence, Runs
from estimators.retraining_based.banzhaf import Banzhaf
from estimators.retraining_based.difference_in_means import DifferenceInMeans
from estimators.retraining_based.leave_group_out import Groups
from estimators.retraining_based.leave_one_out import LeaveOneOut
from estimators.retraining_based.shapley import BetaShapley, Shapley
from estimators.values.intervals import interval
from estimators.values.semivalue_weights import banzhaf_sizes, beta_sizes

SWEEPS = 300
N = 6
NOISE = 0.3
NAMES = ["additive", "airport", "majority", "shoes"]
FEWEST = binom.ppf(1e-4, SWEEPS, 0.95)


def table(game):
    """Worths of all subsets by number (bit i is example i)."""
    return np.array([game.worth(np.flatnonzero((code >> np.arange(N)) & 1)) for code in range(2**N)])


def runs(kind, masks, worths, rng, seeds=1, **more):
    """Runs of one query with independent normal noise."""
    masks = np.repeat(masks, seeds, axis=0)
    worth = worths[masks @ (1 << np.arange(N))] + NOISE * rng.normal(size=len(masks))
    subsets = np.arange(len(masks)) // seeds
    repeats = np.arange(len(masks)) % seeds
    return Runs(kind, kind, "worth", masks, worth[:, None].astype(np.float32), subsets, repeats, **more)


def prefixes(orders):
    place = np.argsort(orders, axis=1)
    return (place[:, None, :] <= np.arange(N)[:, None]).reshape(-1, N)


def permutations(worths, rng, antithetic=False, count=60):
    orders = rng.permuted(np.tile(np.arange(N), (count // (1 + antithetic), 1)), axis=1)
    if antithetic:
        orders = np.stack([orders, orders[:, ::-1]], axis=1).reshape(-1, N)
    return runs(
        "permutations",
        prefixes(orders),
        worths,
        rng,
        permutations=np.repeat(np.arange(count), N),
        antithetic=antithetic,
    )


def truncated(worths, rng, tolerance=0.5):
    """Leave out what lies behind the first prefix that is within the tolerance of the full set."""
    whole = permutations(worths, rng)
    close = np.abs(whole.outputs[:, 0] - worths[-1]).reshape(-1, N) <= tolerance
    kept = (np.cumsum(close, axis=1) - close == 0).ravel()
    fields = ("masks", "outputs", "subsets", "repeats", "permutations")
    return Runs("permutations", "permutations", "worth", **{key: getattr(whole, key)[kept] for key in fields})


def check(estimator, worths, truth, draw):
    covered = np.zeros(N)
    for sweep in range(SWEEPS):
        rng = np.random.default_rng((sweep, 7))
        found = estimator.attribute(
            Evidence(N, 1, "worth", runs={one.design: one for one in draw(rng)}, empty=worths[:1].astype(np.float32))
        )
        low, high = interval(found.utility, found.utility_standard_error, found.degrees_of_freedom)
        covered += (low <= truth) & (truth <= high)
    assert (covered >= FEWEST).all(), covered / SWEEPS


@pytest.mark.slow
@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_shapley(game, by_orders, name, antithetic):
    task = game(name, N)
    worths = table(task)
    check(Shapley(), worths, by_orders(task), lambda rng: [permutations(worths, rng, antithetic)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_beta_shapley(game, by_subsets, name):
    task = game(name, N)
    worths = table(task)
    truth = by_subsets(task, beta_sizes(N, 4, 1))
    check(BetaShapley(alpha=4, beta=1), worths, truth, lambda rng: [permutations(worths, rng)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("estimator", [Banzhaf(), DifferenceInMeans()])
def test_banzhaf_and_difference_in_means(game, by_subsets, name, estimator):
    task = game(name, N)
    worths = table(task)
    truth = by_subsets(task, banzhaf_sizes(N))

    def draw(rng):
        masks = rng.random((200, N)) < 0.5
        return [runs("bernoulli", masks[masks.any(axis=1) | isinstance(estimator, DifferenceInMeans)], worths, rng)]

    check(estimator, worths, truth, draw)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["leave_one_out", "leave_group_out"])
def test_leaving_out(game, name, kind):
    task = game(name, N)
    worths = table(task)
    group = np.arange(N) if kind == "leave_one_out" else np.arange(N) % 3
    masks = group != np.unique(group)[:, None]
    truth = worths[-1] - worths[masks[group] @ (1 << np.arange(N))]
    full = np.ones((1, N), bool)
    estimator = LeaveOneOut() if kind == "leave_one_out" else Groups(share="group")
    check(estimator, worths, truth, lambda rng: [runs(kind, masks, worths, rng, 5), runs("full", full, worths, rng, 5)])


@pytest.mark.parametrize("name", NAMES)
def test_exact_enumeration(game, by_orders, name):
    task = game(name, N)
    worths = table(task)
    masks = (np.arange(2**N)[:, None] >> np.arange(N)) & 1 == 1
    check(Shapley(), worths, by_orders(task), lambda rng: [runs("explicit", masks, worths, rng, 3)])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_truncation_stays_within_its_tolerance(game, by_orders, name):
    """Truncation at |full - prefix| <= 0.5 moves no value by more than the tolerance; its intervals cover that far."""
    task = game(name, N)
    worths = table(task)
    for sweep in range(20):
        rng = np.random.default_rng(sweep)
        full = runs("full", np.ones((1, N), bool), worths, rng, 5)
        given = {"permutations": truncated(worths, rng), "full": full}
        found = Shapley().attribute(Evidence(N, 1, "worth", runs=given, empty=worths[:1].astype(np.float32)))
        low, high = interval(found.values[:, 0], found.standard_error[:, 0], found.degrees_of_freedom, 0.999)
        assert (low - 0.5 <= by_orders(task)).all()
        assert (by_orders(task) <= high + 0.5).all()


@pytest.mark.parametrize("antithetic", [False, True])
def test_twice_the_permutations_shrink_the_interval_by_the_root_of_two(game, antithetic):
    worths = table(game("airport", N))

    def width(count):
        found = [
            Shapley().attribute(
                Evidence(
                    N,
                    1,
                    "worth",
                    runs={"p": permutations(worths, np.random.default_rng(seed), antithetic, count)},
                    empty=np.zeros(1, np.float32),
                )
            )
            for seed in range(20)
        ]
        return np.mean([one.standard_error for one in found])

    np.testing.assert_allclose(width(100) / width(200), np.sqrt(2), rtol=0.05)
