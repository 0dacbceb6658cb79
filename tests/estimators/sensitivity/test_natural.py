"""The sampling form: conjugate posteriors without error, binary weights against enumeration and retraining."""

import itertools

import numpy as np
import pytest
import torch

from estimators.sensitivity.natural import binary_natural_gradients, expectation_deviations, natural_gradients
from workers.errors import ConfigError


def test_beta_bernoulli_gives_the_exact_posterior():
    """A Beta(2 + heads, 3 + tails) less one observation, in natural parameters, from five draws."""
    heads = torch.tensor([1, 0, 1, 1, 0, 1, 1], dtype=torch.float64)
    a, b = 2 + float(heads.sum()), 3 + float((1 - heads).sum())
    chance = torch.from_numpy(np.random.default_rng(0).beta(a, b, 5))
    statistics = torch.stack([chance.log(), (1 - chance).log()], 1)
    losses = -(heads * chance.log()[:, None] + (1 - heads) * (1 - chance).log()[:, None])
    moved = natural_gradients(statistics, losses)
    posterior = torch.tensor([a - 1, b - 1], dtype=torch.float64)  # natural parameters of a Beta
    for i, head in enumerate(heads.tolist()):
        without = torch.tensor([a - head - 1, b - (1 - head) - 1], dtype=torch.float64)
        torch.testing.assert_close(posterior + moved[i], without)


def test_too_few_draws_are_refused():
    some = torch.randn(3, 3, dtype=torch.float64)
    with pytest.raises(ConfigError, match="expected more draws"):
        natural_gradients(some, some)
    with pytest.raises(ConfigError, match="between -1 and 1"):
        binary_natural_gradients(torch.tensor([1.0]), some[:, :1], some)


class BinaryLogistic:
    """Logistic regression with six weights of +1 or -1, and the mean-field posterior of BayesBiNN, by enumeration of all 64."""

    def __init__(self):
        rng = np.random.default_rng(4)
        self.x = rng.normal(size=(30, 6))
        true = np.array([1, -1, 1, 1, -1, -1])
        self.y = np.where(rng.random(30) < 1 / (1 + np.exp(-0.5 * self.x @ true)), 1.0, -1.0)
        self.weights = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))
        self.losses = np.logaddexp(0, -0.5 * self.y * (self.weights @ self.x.T))  # (64, 30)
        self.wrong = (self.y * (self.weights @ self.x.T) < 0).astype(float)  # 0 or 1: no gradient anywhere

    def chances(self, means):
        return np.prod((1 + self.weights * means) / 2, axis=1)

    def slopes(self, natural, losses):
        """d E loss / d mean_j by flipping one weight: (n, 6)."""
        means = np.tanh(natural)
        found = []
        for j in range(6):
            one = means.copy()
            one[j] = 1
            other = means.copy()
            other[j] = -1
            found.append((self.chances(one) - self.chances(other)) @ losses / 2)
        return np.array(found).T

    def trained(self, keep, prior=0.0):
        """The fixed point lambda = prior - sum of d E loss_i / d mean, by damped iteration (the Bayesian learning rule)."""
        natural = np.zeros(6)
        for _ in range(120):
            natural = 0.8 * natural + 0.2 * (prior - self.slopes(natural, self.losses)[keep].sum(0))
        return natural


@pytest.fixture(scope="module")
def binary():
    return BinaryLogistic()


def draws(binary, means, count):
    rng = np.random.default_rng(1)
    signs = np.where(rng.random((count, 6)) < (1 + means) / 2, 1.0, -1.0)
    places = ((signs + 1) / 2) @ (2 ** np.arange(5, -1, -1))
    return torch.from_numpy(signs), places.astype(int)


def test_binary_weights_by_draws_are_what_enumeration_says(binary):
    natural = binary.trained(np.arange(30))
    means = np.tanh(natural)
    signs, places = draws(binary, means, 200_000)
    assert np.array_equal(binary.weights[places], signs.numpy())
    made = binary_natural_gradients(torch.from_numpy(means), signs, torch.from_numpy(binary.losses[places]))
    wanted = binary.slopes(natural, binary.losses)
    error = np.abs(made.numpy() - wanted) * np.sqrt(1 - means**2)  # of settled weights little is drawn
    assert error.max() < 0.02
    assert np.abs(wanted).max() > 0.2


def test_binary_weights_move_as_in_retraining(binary):
    """Natural parameters without each example, and the expected share of errors, a loss without a gradient."""
    everything = np.arange(30)
    natural = binary.trained(everything)
    means = np.tanh(natural)
    retrained = np.array([binary.trained(np.delete(everything, i)) for i in everything])
    chances = torch.from_numpy(binary.chances(means))
    signs = torch.from_numpy(binary.weights)
    # the whole enumeration, each as often as its chance: draws without their error
    often = torch.repeat_interleave(torch.arange(64), (chances * 100_000).round().long())
    moved = binary_natural_gradients(torch.from_numpy(means), signs[often], torch.from_numpy(binary.losses)[often])
    true = retrained - natural  # the equation takes the others' expected gradients for fixed
    assert np.corrcoef(moved.numpy().ravel(), true.ravel())[0, 1] > 0.9
    expected = expectation_deviations(signs[often], torch.from_numpy(binary.wrong)[often], moved).numpy()
    before = binary.chances(means) @ binary.wrong
    after = np.array([binary.chances(np.tanh(one)) @ binary.wrong for one in retrained])
    assert np.corrcoef(expected.ravel(), (after - before).ravel())[0, 1] > 0.85
