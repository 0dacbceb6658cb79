"""The damping of training against gradient descent on a quadratic, followed step by step; the L2 term's curvature."""

import numpy as np
import pytest

from estimators.curvature.damping import l2_curvature, unrolled_damping
from workers.errors import ConfigError
from workers.recipe import Recipe


@pytest.mark.parametrize(("momentum", "schedule"), [(0.0, "constant"), (0.0, "cosine"), (0.5, "linear")])
def test_in_flat_directions_descent_moves_by_one_over_the_damping(momentum: float, schedule: str) -> None:
    recipe = Recipe(lr=0.05, momentum=momentum, schedule=schedule, batch_size=10, epochs=40)
    place = velocity = 0.0
    for rate in recipe.learning_rates(50):  # a constant gradient of -1, without curvature
        velocity = momentum * velocity + 1.0
        place += rate * velocity
    assert place == pytest.approx(1 / unrolled_damping(recipe, 50), rel=0.02)


def test_adam_counts_its_rates_alone() -> None:
    recipe = Recipe(optimizer="adam", lr=0.01, momentum=0.9, batch_size=50, epochs=10)
    assert unrolled_damping(recipe, 50) == pytest.approx(10.0)


def test_a_training_that_goes_nowhere_suggests_none() -> None:
    recipe = Recipe(lr=0.1, warmup_steps=1, batch_size=50, epochs=1)
    assert np.all(recipe.learning_rates(50) == 0)
    with pytest.raises(ConfigError, match="expected a damping of your own"):
        unrolled_damping(recipe, 50)


def test_weight_decay_is_curvature_only_as_an_l2_term():
    assert l2_curvature(Recipe(optimizer="sgd", weight_decay=0.1)) == 0.1
    assert l2_curvature(Recipe(optimizer="adam", weight_decay=0.1)) == 0.1
    assert l2_curvature(Recipe(optimizer="adamw", weight_decay=0.1)) == 0.0
    assert l2_curvature(Recipe(optimizer="adamw", weight_decay=0.1, no_decay=("*bias",))) == 0.0
    assert l2_curvature(Recipe(no_decay=("*bias",))) == 0.0


def test_weight_decay_of_some_parameters_is_refused():
    with pytest.raises(ConfigError, match=r"found no_decay \*bias, norm\*: use weight_decay: false"):
        l2_curvature(Recipe(weight_decay=0.1, no_decay=("*bias", "norm*")))
