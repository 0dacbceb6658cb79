import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workers import Recipe


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


@given(
    schedule=st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
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
    "wrong", [{"learning_rate": 1}, {"lr": 0}, {"nesterov": True}, {"epochs": 0}, {"optimizer": "lion"}]
)
def test_a_wrong_field_is_refused(wrong):
    with pytest.raises(ValidationError):
        Recipe(**wrong)
