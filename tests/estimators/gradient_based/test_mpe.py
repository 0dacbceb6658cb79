"""Every row of the table against its definition: gradients and curvatures by autograd, matrices in float64."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from estimators.curvature.damping import unrolled_damping
from estimators.evidence import Reference
from estimators.gradient_based.influence import Influence
from estimators.gradient_based.kfac import Kfac
from estimators.gradient_based.mpe import Mpe
from estimators.gradient_based.tracin import TracIn
from tests.estimators.exact import exact_values
from tests.estimators.gradient_based.test_influence import dense_ggn
from workers import Recipe
from workers.errors import ConfigError
from workers.runs import Checkpoint

RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, precision="float64", weight_decay=0.02)
SHIFT = unrolled_damping(RECIPE, 24) + 0.02


@pytest.fixture(scope="module", params=[("classification", 4, "margin"), ("regression", 0, "squared_error")])
def evidence(request, toy, evidence_of):
    kind, hidden, measure = request.param
    return evidence_of(toy(kind, hidden=hidden, recipe=RECIPE), measure)


def by_definition(evidence, autograd, covariance):
    """Mean over models of - G_q S G_i with n S = covariance(task, reference, train gradients), a matrix."""
    task, found = evidence.task, []
    for reference in evidence.references:
        last = reference.checkpoints[-1]
        train = autograd(task, last, task.loss, task.train_inputs, task.train_targets)
        queries = autograd(task, last, task.measurement(evidence.measure), task.query_inputs, task.query_targets)
        found.append(-train @ covariance(task, reference, train) @ queries.T / task.n)
    return np.mean(found, axis=0)


def check(estimator, evidence, autograd, covariance):
    wanted = by_definition(evidence, autograd, covariance)
    np.testing.assert_allclose(exact_values(estimator, evidence).numpy(), wanted, rtol=1e-7, atol=1e-11)


def shifted(matrix):
    return np.linalg.inv(matrix + SHIFT * np.eye(len(matrix)))


def test_newton_full_is_influence(evidence, autograd):
    def covariance(task, reference, train):
        return shifted(dense_ggn(task, reference.checkpoints[-1]))

    check(Mpe(), evidence, autograd, covariance)
    torch.testing.assert_close(exact_values(Mpe(), evidence), exact_values(Influence(), evidence))


def test_newton_by_layers_is_kfac(evidence):
    wanted = exact_values(Kfac(damping="auto", fisher="exact", memory_gb=2), evidence)
    torch.testing.assert_close(
        exact_values(Mpe(covariance="kfac"), evidence), wanted.to(torch.float64), rtol=1e-6, atol=1e-9
    )


def test_newton_diagonal(evidence, autograd):
    def covariance(task, reference, train):
        return shifted(np.diag(np.diag(dense_ggn(task, reference.checkpoints[-1]))))

    check(Mpe(covariance="diagonal"), evidence, autograd, covariance)


@pytest.mark.parametrize("row", ["online_newton", "diagonal"])
def test_online_newton(evidence, autograd, row):
    def covariance(task, reference, train):
        first, second = (dense_ggn(task, one) for one in reference.checkpoints if one.epoch > 0)
        running = 0.7 * first + 0.3 * second
        return shifted(running if row == "online_newton" else np.diag(np.diag(running)))

    check(Mpe(row=row, rate=0.3), evidence, autograd, covariance)


def test_adam(evidence, autograd):
    def covariance(task, reference, train):
        mean, variance = train.mean(0), train.var(0)
        second = mean**2 + variance / 8 * (24 - 8) / 23  # of batches of 8 without repetition
        return np.diag(1 / (np.sqrt(second) + SHIFT))

    check(Mpe(row="adam"), evidence, autograd, covariance)


def test_sgd_is_tracins_term(evidence, autograd):
    check(Mpe(row="sgd"), evidence, autograd, lambda task, reference, train: 0.3 * np.eye(train.shape[1]))
    last = TracIn(epochs=(evidence.task.recipe.epochs,))
    torch.testing.assert_close(exact_values(Mpe(row="sgd"), evidence), exact_values(last, evidence) / evidence.n)


def test_iblr(toy, evidence_of, autograd):
    """Means over draws of gradients and curvatures, one model at a draw after the other."""
    evidence = evidence_of(toy("regression", recipe=RECIPE), "squared_error", models=1)
    task, last = evidence.task, evidence.references[0].checkpoints[-1]
    from estimators.gradient_based.mpe import _generator

    draws = torch.randn(2, 4, generator=_generator(evidence.seed, 0), dtype=torch.float64)

    def at(step):
        flat = torch.cat([value.flatten() for value in last.state.values()]) + step
        state = {"weight": flat[:3].reshape(1, 3), "bias": flat[3:]}
        return Checkpoint(last.epoch, last.step, last.learning_rate, state)

    diagonal = np.diag(dense_ggn(task, last))
    for _ in range(2):
        spread = torch.from_numpy(1 / np.sqrt(24 * (diagonal + SHIFT)))
        diagonal = np.mean([np.diag(dense_ggn(task, at(spread * draw))) for draw in draws], axis=0)
    spread = torch.from_numpy(1 / np.sqrt(24 * (diagonal + SHIFT)))
    measure = task.measurement("squared_error")
    train, queries = (
        np.mean([autograd(task, at(spread * draw), f, *of) for draw in draws], axis=0)
        for f, of in (
            (task.loss, (task.train_inputs, task.train_targets)),
            (measure, (task.query_inputs, task.query_targets)),
        )
    )
    wanted = -train @ np.diag(1 / (diagonal + SHIFT)) @ queries.T / 24
    made = exact_values(Mpe(row="iblr", samples=2, rounds=2), evidence)
    np.testing.assert_allclose(made.numpy(), wanted, rtol=1e-7, atol=1e-11)


def test_what_is_told(evidence):
    told = Mpe(row="diagonal").attribute(evidence).details
    assert told["covariance"] == "diagonal"
    assert told["damping"] == pytest.approx(SHIFT)
    assert Mpe(row="sgd").attribute(evidence).details["rates"] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"row": "sgd", "covariance": "kfac"}, "covariance goes with row newton, found sgd"),
        ({"rate": 0.2}, "rate goes with row online_newton or diagonal, found newton"),
        ({"samples": 2}, "samples goes with row iblr"),
        ({"covariance": "kfac", "damping": 0}, "covariance kfac needs a damping above 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        Mpe(**given)


def test_a_rate_of_zero_is_refused(evidence):
    from dataclasses import replace

    last = evidence.references[0].checkpoints[-1]
    stopped = replace(evidence, references=(Reference(0, (replace(last, learning_rate=0.0),)),))
    with pytest.raises(ConfigError, match="learning rate of the checkpoint's last step, found 0"):
        Mpe(row="sgd").attribute(stopped)


def test_a_damping_that_only_a_recipe_tells_is_refused(evidence):
    task = evidence.task
    known, task.recipe = task.recipe, None
    try:
        with pytest.raises(ConfigError, match="expected a number"):
            Mpe().check(evidence)
        with pytest.raises(ConfigError, match="batch size"):
            Mpe(row="adam", damping=0.1, weight_decay=False).check(evidence)
    finally:
        task.recipe = known
