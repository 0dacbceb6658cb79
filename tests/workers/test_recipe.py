import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workers import Recipe
from workers.errors import ConfigError
from workers.tasks.arguments import override
from workers.training.decay import undecayed


def torch_rates(recipe, size, make, per_epoch):
    """Return the learning rates that a PyTorch scheduler gives, stepped once an epoch or once a step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(recipe.epochs):
        for _ in range(recipe.steps_per_epoch(size)):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if not per_epoch:
                scheduler.step()
        if per_epoch:
            scheduler.step()
    return rates


def test_step_is_torchs_step_lr():
    recipe = Recipe(lr=0.3, schedule="step", step_epochs=3, step_factor=0.5, batch_size=10, epochs=8)
    expected = torch_rates(recipe, 25, lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5), per_epoch=True)
    np.testing.assert_allclose(recipe.learning_rates(25), expected, rtol=1e-12)


def test_cosine_is_torchs_cosine_annealing():
    recipe = Recipe(lr=0.3, schedule="cosine", batch_size=10, epochs=8)
    expected = torch_rates(recipe, 25, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 24), per_epoch=False)
    np.testing.assert_allclose(recipe.learning_rates(25), expected, rtol=1e-9, atol=1e-12)


def test_one_cycle_in_closed_form():
    recipe = Recipe(lr=1.0, schedule="one_cycle", warmup=0.25, batch_size=1, epochs=1)
    expected = [1 / 2, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7]  # the peak is at step 2 of 8, zero at 9
    np.testing.assert_allclose(recipe.learning_rates(8), expected, rtol=1e-12)


def test_linear_is_torchs_linear_lr():
    recipe = Recipe(lr=0.3, schedule="linear", batch_size=10, epochs=8)
    scheduler = torch.optim.lr_scheduler.LinearLR
    expected = torch_rates(recipe, 25, lambda o: scheduler(o, 1.0, 0.0, total_iters=24), per_epoch=False)
    np.testing.assert_allclose(recipe.learning_rates(25), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [({"warmup_steps": 5}, 5), ({"warmup_ratio": 0.3}, 8)])
def test_a_warm_up_is_followed_by_the_whole_decay(schedule, warmup, steps):
    """Step k of the climb has rate lr * k / steps; the decay then takes the steps that are left, in torch's own schedulers."""
    schedulers = torch.optim.lr_scheduler
    decays = {
        "constant": lambda o: schedulers.ConstantLR(o, 1.0),
        "linear": lambda o: schedulers.LinearLR(o, 1.0, 0.0, total_iters=24 - steps),
        "cosine": lambda o: schedulers.CosineAnnealingLR(o, 24 - steps),
    }
    recipe = Recipe(lr=0.3, schedule=schedule, batch_size=10, epochs=8, **warmup)
    rates = recipe.learning_rates(25)
    assert rates[0] == 0
    climb = torch_rates(recipe, 25, lambda o: schedulers.LinearLR(o, 1 / steps, 1.0, steps - 1), per_epoch=False)
    np.testing.assert_allclose(rates[1:steps], climb[: steps - 1], rtol=1e-9)
    decay = torch_rates(recipe, 25, decays[schedule], per_epoch=False)
    np.testing.assert_allclose(rates[steps:], decay[: 24 - steps], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 7, 24, 40])
def test_warm_ups_are_those_of_transformers(schedule, warmup):
    optimization = pytest.importorskip("transformers.optimization")
    make = getattr(optimization, f"get_{schedule}_schedule_with_warmup")
    total = {} if schedule == "constant" else {"num_training_steps": 24}
    recipe = Recipe(lr=0.3, schedule=schedule, batch_size=10, epochs=8, warmup_steps=warmup)
    expected = torch_rates(recipe, 25, lambda o: make(o, num_warmup_steps=warmup, **total), per_epoch=False)
    np.testing.assert_allclose(recipe.learning_rates(25), expected, rtol=1e-9, atol=1e-12)


def test_steps_are_counted_in_batches_that_are_gathered():
    recipe = Recipe(schedule="linear", batch_size=10, accumulate=2, epochs=4, lr=1.0)
    assert recipe.batches_per_epoch(45) == 5
    assert recipe.steps_per_epoch(45) == 3  # 20, 20 and 5 examples
    np.testing.assert_allclose(recipe.learning_rates(45), 1 - np.arange(12) / 12)


@given(
    schedule=st.sampled_from(["constant", "linear", "step", "cosine", "one_cycle"]),
    size=st.integers(1, 200),
    batch_size=st.integers(1, 64),
    epochs=st.integers(1, 20),
    warmup=st.floats(0.05, 0.95),
)
def test_every_step_has_a_rate_above_zero_and_at_most_the_peak(schedule, size, batch_size, epochs, warmup):
    recipe = Recipe(lr=0.2, schedule=schedule, batch_size=batch_size, epochs=epochs, warmup=warmup)
    rates = recipe.learning_rates(size)
    assert rates.shape == (epochs * -(-size // batch_size),)
    assert (rates > 0).all()
    assert (rates <= 0.2 * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 1},
        {"lr": 0},
        {"nesterov": True},
        {"epochs": 0},
        {"optimizer": "lion"},
        {"clip_norm": 0},
        {"accumulate": 0},
        {"ema": 1},
        {"ema": 0},
        {"eps_in": "outside"},
        {"no_decay": "*.bias"},
        {"warmup_steps": -1},
        {"warmup_ratio": 1},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused(wrong):
    with pytest.raises(ValidationError) as refused:
        Recipe(**wrong)
    assert len(refused.value.errors()) == 1


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"clip_norm": -1}, "task.arguments.recipe: clip_norm: Input should be greater than 0, found -1"),
        ({"ema": 1.5}, "task.arguments.recipe: ema: Input should be less than 1, found 1.5"),
        (
            {"warmup_steps": 3, "schedule": "step"},
            "warmup_steps goes with schedule constant, linear or cosine, found step",
        ),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "two ways to say the same: expected one of them"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_line(recipe, said):
    with pytest.raises(ConfigError) as refused:
        override(Recipe(), recipe)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pattern_names_parameters_or_is_refused():
    names = ["stem.weight", "stem.bias", "norm.weight", "norm.bias"]
    assert undecayed(Recipe(no_decay=("*.bias", "norm*")), names) == {"stem.bias", "norm.weight", "norm.bias"}
    assert undecayed(Recipe(), names) == frozenset()
    with pytest.raises(
        ConfigError, match=r"no_decay: pattern '\*\.biases' matches no parameter of the module; did you mean"
    ):
        undecayed(Recipe(no_decay=("norm*", "*.biases")), names)
