"""Shapley values from prefixes of permutations, against all orders, literal marginals and the axioms."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.registry import find
from estimators.retraining_based.shapley import BetaShapley, Shapley
from estimators.values.permutations import Ends, permutation_values, permutations_of, units_of
from estimators.values.semivalue_weights import beta_sizes, shapley_sizes
from workers.errors import ConfigError, DataError

ORDERS = list(permutations(range(4)))


def random_orders(n, count, seed):
    rng = np.random.default_rng(seed)
    return [rng.permutation(n) for _ in range(count)]


def with_reverses(orders):
    return [one for order in orders for one in (order, order[::-1])]


def marginals(game, order, weights):
    """Literal marginal gains of one order, (n,)."""
    found = np.zeros(game.n)
    for place, i in enumerate(order):
        found[i] = game.worth(sorted(order[: place + 1])) - game.worth(sorted(order[:place]))
        found[i] *= weights[place]
    return found


@pytest.mark.parametrize("name", ["additive", "airport", "majority", "shoes"])
def test_all_orders_give_the_exact_value(game, permuted, evidence_with, by_orders, name):
    task = game(name, 4)
    runs = permuted(task, ORDERS)
    exact = dataclasses.replace(runs, outputs=np.array([task.output(mask) for mask in runs.masks]))
    units = units_of(permutations_of(exact, Ends(task.output(np.zeros(4)), None)), antithetic=False)
    values, _ = permutation_values(units, shapley_sizes(4))
    np.testing.assert_allclose(values, task.true(by_orders(task)), atol=1e-14)
    found = find("shapley")().attribute(evidence_with(task, runs))
    np.testing.assert_allclose(found.values, task.true(by_orders(task)), atol=1e-6)
    np.testing.assert_allclose(found.utility, 1.5 * by_orders(task), atol=1e-6)


def test_all_orders_give_the_exact_beta_value(game, permuted, evidence_with, by_orders, by_subsets):
    task = game("airport", 4)
    evidence = evidence_with(task, permuted(task, ORDERS))
    found = find("beta_shapley")(alpha=4, beta=1).attribute(evidence)
    np.testing.assert_allclose(found.values[:, 0], by_subsets(task, beta_sizes(4, 4, 1)), atol=1e-6)
    np.testing.assert_allclose(found.values[:, 0], by_orders(task, 4 * beta_sizes(4, 4, 1)), atol=1e-6)
    one = BetaShapley(alpha=1, beta=1).attribute(evidence)
    np.testing.assert_array_equal(one.values, Shapley().attribute(evidence).values)


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("block", [1 << 22, 1])
def test_values_and_errors_equal_literal_ones(monkeypatch, game, permuted, evidence_with, antithetic, block):
    monkeypatch.setattr("estimators.values.permutations._BLOCK", block)
    task, sizes = game("shoes", 6), beta_sizes(6, 2, 1)
    orders = with_reverses(random_orders(6, 10, 0))
    runs = permuted(task, orders, antithetic=antithetic)
    shuffled = np.random.default_rng(1).permutation(len(runs.masks))
    rows = {key: getattr(runs, key)[shuffled] for key in ("masks", "outputs", "subsets", "repeats", "permutations")}
    found = BetaShapley(alpha=2, beta=1).attribute(evidence_with(task, dataclasses.replace(runs, **rows)))
    units = np.array([marginals(task, order, 6 * sizes) for order in orders])
    if antithetic:
        units = units.reshape(10, 2, 6).mean(axis=1)
    error = units.std(axis=0, ddof=1) / np.sqrt(len(units))
    np.testing.assert_allclose(found.values, task.true(units.mean(0)), atol=1e-6)
    np.testing.assert_allclose(found.standard_error, task.true(error), atol=1e-6)
    np.testing.assert_allclose(found.utility_standard_error, 1.5 * error, atol=1e-6)
    assert found.degrees_of_freedom == len(units) - 1
    assert (found.details["permutations"], found.details["independent"]) == (20, len(units))
    assert (found.details["truncated"], found.details["largest_step"]) == (0, 1)
    assert (found.fitted_on, found.models) == (("fit",), 120)


def test_seeds_of_a_prefix_are_averaged(game, permuted, evidence_with):
    task = game("airport", 4, noise=0.3)
    runs = permuted(task, random_orders(4, 6, 0), seeds=3)
    means = dataclasses.replace(
        runs,
        **{key: getattr(runs, key)[::3] for key in ("masks", "subsets", "repeats", "permutations")},
        outputs=runs.outputs.reshape(-1, 3, 2).mean(axis=1),
    )
    three, one = (Shapley().attribute(evidence_with(task, each)) for each in (runs, means))
    np.testing.assert_allclose(three.values, one.values, atol=1e-6)
    np.testing.assert_allclose(three.standard_error, one.standard_error, atol=1e-6)


def test_the_output_of_no_data(game, permuted, evidence_with, runs_of):
    task = game("additive", 4)
    runs = permuted(task, ORDERS[:5])
    shift = 3.0
    by_design = dataclasses.replace(
        runs,
        **{
            key: np.concatenate([np.repeat(extra, 5, axis=0), getattr(runs, key)])
            for key, extra in (
                ("masks", np.zeros((1, 4), bool)),
                ("outputs", np.full((1, 2), shift, np.float32)),
                ("subsets", [99]),
                ("repeats", [0]),
            )
        },
        permutations=np.concatenate([np.arange(5), runs.permutations]),
    )
    with pytest.raises(DataError, match="need the output of no data, which no run gives; set `empty`"):
        Shapley().attribute(evidence_with(task, runs, empty=False))
    option = Shapley(empty=shift).attribute(evidence_with(task, runs)).values
    trained = Shapley(empty=77.0).attribute(evidence_with(task, by_design)).values
    np.testing.assert_allclose(option, trained, atol=1e-6)
    np.testing.assert_allclose(option.sum(0), task.output(np.ones(4)) - shift, atol=1e-5)


def test_truncated_permutations_end_with_the_full_set(game, permuted, evidence_with, runs_of):
    task = game("airport", 8)
    orders = random_orders(8, 12, 3)
    runs = permuted(task, orders, tolerance=1.6)
    full = runs_of(task, "full", np.ones((2, 8)))
    literal = np.zeros((12, 8))
    truncated = 0
    for row, order in zip(literal, orders, strict=True):
        for place, i in enumerate(order):
            row[i] = task.worth(order[: place + 1]) - task.worth(order[:place])
            if 1.5 * (4.0 - task.worth(order[: place + 1])) <= 1.6:
                rest = list(order[place + 1 :])
                row[rest] = (4.0 - task.worth(order[: place + 1])) / max(len(rest), 1)
                truncated += len(rest) > 0
                break
    evidence = evidence_with(task, runs, full)
    found = Shapley().attribute(evidence)
    np.testing.assert_allclose(found.values, task.true(literal.mean(0)), atol=1e-6)
    np.testing.assert_allclose(found.values.sum(0), [4, 8], atol=1e-5)
    np.testing.assert_allclose(found.standard_error, task.true(literal.std(0, ddof=1) / 12**0.5), atol=1e-6)
    assert found.details["truncated"] == truncated > 6
    assert found.details["largest_step"] == 1
    assert (found.fitted_on, found.models) == (("fit", "fit"), len(runs.masks) + 2)
    with pytest.raises(DataError, match="need the output of the full set, which no run gives"):
        Shapley().attribute(evidence_with(task, permuted(task, orders[:1], tolerance=1.6)))


def test_noise_of_the_full_set_enters_the_errors_of_truncated_permutations(game, permuted, evidence_with, runs_of):
    task = game("majority", 6)
    orders = with_reverses(random_orders(6, 20, 0))
    runs, full = permuted(task, orders, tolerance=0), runs_of(task, "full", np.ones((4, 6)))
    noisy = dataclasses.replace(full, outputs=full.outputs + np.array([[3], [-3], [1], [-1]], np.float32))
    calm, rough = (Shapley().attribute(evidence_with(task, runs, one)) for one in (full, noisy))
    np.testing.assert_allclose(rough.values, calm.values, atol=1e-6)
    error = np.sqrt(20 / 3 / 4)
    last = np.mean([np.isin(np.arange(6), order[4:]) / 2 for order in orders], axis=0)
    expected = np.hypot(calm.standard_error, error * last[:, None])
    np.testing.assert_allclose(rough.standard_error, expected, rtol=1e-5)


def test_examples_added_together_share_alike(game, permuted, evidence_with):
    task = game("airport", 6)
    order = np.array([4, 1, 5, 0, 3, 2])
    found = Shapley().attribute(evidence_with(task, permuted(task, [order, order], step=4)))
    np.testing.assert_allclose(found.values[:, 0], [0.75, 0.75, 0, 0, 0.75, 0.75], atol=1e-6)
    assert found.details["largest_step"] == 4
    weights = 6 * beta_sizes(6, 4, 1)
    beta = BetaShapley(alpha=4, beta=1).attribute(evidence_with(task, permuted(task, [order, order], step=4)))
    np.testing.assert_allclose(beta.values[0, 0], 3 * weights[:4].mean() / 4, atol=1e-6)


def test_a_lost_prefix_makes_a_step_of_two(game, permuted, evidence_with):
    task = game("additive", 4)
    runs = permuted(task, [np.arange(4)])
    kept = [0, 2, 3]
    rows = {key: getattr(runs, key)[kept] for key in ("masks", "outputs", "subsets", "repeats", "permutations")}
    found = Shapley().attribute(evidence_with(task, dataclasses.replace(runs, **rows)))
    np.testing.assert_allclose(found.values[:, 0], [-0.7, 0.05, 0.05, 0.8], atol=1e-6)
    assert found.details["largest_step"] == 2
    assert found.standard_error is None
    assert found.utility_standard_error is None


def test_unfinished_permutations_are_left_out(game, permuted, evidence_with):
    task = game("airport", 4)
    runs = permuted(task, ORDERS[:7])
    marked = dataclasses.replace(runs, permutations=np.where(runs.permutations == 6, -1, runs.permutations))
    found = Shapley().attribute(evidence_with(task, marked))
    expected = Shapley().attribute(evidence_with(task, permuted(task, ORDERS[:6])))
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.details["unfinished_rows"] == 4
    with pytest.raises(DataError, match="no finished permutation yet"):
        Shapley().attribute(
            evidence_with(task, dataclasses.replace(runs, permutations=np.full(len(runs.permutations), -1)))
        )


def test_half_of_an_antithetic_pair_is_a_unit_of_its_own(game, permuted, evidence_with):
    task = game("shoes", 4)
    orders = with_reverses(random_orders(4, 3, 5))[:5]
    found = Shapley().attribute(evidence_with(task, permuted(task, orders, antithetic=True)))
    gains = np.array([marginals(task, order, np.ones(4)) for order in orders])
    units = np.array([gains[:2].mean(0), gains[2:4].mean(0), gains[4]])
    np.testing.assert_allclose(found.values[:, 0], units.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.standard_error[:, 0], units.std(0, ddof=1) / 3**0.5, atol=1e-6)


def test_rows_that_are_no_permutation_are_refused(game, permuted, evidence_with, runs_of):
    task = game("airport", 4)
    runs = permuted(task, ORDERS[:3])
    torn = dataclasses.replace(runs, permutations=np.zeros(len(runs.permutations), np.int64))
    with pytest.raises(DataError, match="permutation 0 are not prefixes of one order"):
        Shapley().attribute(evidence_with(task, torn))
    with pytest.raises(DataError, match="does not say which permutation"):
        Shapley().attribute(evidence_with(task, dataclasses.replace(runs, permutations=None)))
    partial = runs_of(task, "full", [[1, 1, 1, 0]])
    with pytest.raises(DataError, match="do not see all examples"):
        Shapley().attribute(evidence_with(task, runs, partial))
    with pytest.raises(ConfigError, match="one fitting design of kind permutations or explicit"):
        Shapley().attribute(evidence_with(task, partial))


@st.composite
def sweeps(draw):
    n = draw(st.integers(2, 5))
    worth = draw(st.lists(st.floats(-8, 8, width=32), min_size=2**n, max_size=2**n))
    orders = draw(st.lists(st.permutations(range(n)), min_size=1, max_size=6))
    step = draw(st.integers(1, n))
    tolerance = draw(st.none() | st.floats(0, 4))
    return np.array(worth), [np.array(order) for order in orders], step, tolerance


@settings(max_examples=60, deadline=None)
@given(sweeps())
def test_efficiency_holds_for_any_orders_steps_and_truncation(table_game, permuted, evidence_with, runs_of, sweep):
    worth, orders, step, tolerance = sweep
    task = table_game(worth)
    runs = permuted(task, orders, step=step, tolerance=tolerance)
    found = Shapley().attribute(evidence_with(task, runs, runs_of(task, "full", np.ones(task.n))))
    np.testing.assert_allclose(found.values[:, 0].sum(), worth[-1] - worth[0], atol=1e-4)
    np.testing.assert_allclose(found.utility.sum(), 1.5 * (worth[-1] - worth[0]), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(sweeps())
def test_null_players_get_nothing_one_at_a_time(table_game, permuted, evidence_with, sweep):
    worth, orders, _, _ = sweep
    index = np.arange(len(worth))
    task = table_game(worth[index & ~2])
    evidence = evidence_with(task, permuted(task, orders))
    assert (Shapley().attribute(evidence).values[1] == 0).all()
    assert (BetaShapley().attribute(evidence).values[1] == 0).all()


@settings(max_examples=60, deadline=None)
@given(sweeps())
def test_symmetric_players_are_equal_over_an_order_and_its_mirror(table_game, permuted, evidence_with, sweep):
    """Of players 0 and 1 of a game that does not tell them apart, over each order and the one with both swapped."""
    worth, orders, step, _ = sweep
    index = np.arange(len(worth))
    swapped = (index & ~3) | ((index & 1) << 1) | ((index >> 1) & 1)
    task = table_game(worth + worth[swapped])
    mirrored = [np.array([{0: 1, 1: 0}.get(int(i), int(i)) for i in order]) for order in orders]
    found = Shapley().attribute(evidence_with(task, permuted(task, [*orders, *mirrored], step=step)))
    np.testing.assert_allclose(found.values[0], found.values[1], atol=1e-4)
