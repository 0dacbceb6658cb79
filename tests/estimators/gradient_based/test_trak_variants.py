"""TRAK's named variants: each is `trak` with one thing changed, and leaves `trak` as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from estimators.evidence import Evidence, Reference
from estimators.gradient_based.trak import Trak
from estimators.gradient_based.trak_early import TrakEarly
from estimators.gradient_based.trak_reweighted import TrakReweighted
from estimators.gradient_based.trak_ridge import TrakRidge
from estimators.gradient_based.trak_subsets import TrakSubsets
from estimators.registry import find
from estimators.subset_members import _run, trained_on_subsets
from tests.estimators.exact import exact_values
from workers.errors import ConfigError, DivergedError
from workers.runs import Run
from workers.training.alone import train


@pytest.fixture(scope="module")
def evidence(toy, evidence_of):
    return evidence_of(toy("classification", hidden=5), "margin", models=3)  # p = 38 > n = 24


def formula(evidence, autograd, checkpoints, ridge=False, reweight=False):
    """Return the mean Newton step times the mean residual, by (p, p) inverses."""
    task, effects, residuals = evidence.task, [], []
    for checkpoint in checkpoints:
        margin = task.measurement("margin")
        phi = autograd(task, checkpoint, margin, task.train_inputs, task.train_targets)
        q = autograd(task, checkpoint, margin, task.query_inputs, task.query_targets)
        module = task.module().double()
        module.load_state_dict(checkpoint.state)
        with torch.no_grad():
            p = torch.sigmoid(margin(module(task.train_inputs), task.train_targets)).numpy()
        gram = phi.T @ (phi * (p * (1 - p))[:, None] if reweight else phi)
        if ridge:
            gram += np.trace(gram) / min(phi.shape) * np.eye(len(gram))
        effects.append(phi @ np.linalg.pinv(gram, rcond=1e-12, hermitian=True) @ q.T)
        residuals.append(1 - p)
    return np.mean(effects, 0) * np.mean(residuals, 0)[:, None]


def last(evidence):
    return [reference.checkpoints[-1] for reference in evidence.references]


def early(evidence):
    return [one for reference in evidence.references for one in reference.checkpoints[:-1] if one.epoch > 0]


@pytest.mark.parametrize(
    ("estimator", "chosen", "changes"),
    [
        (Trak(), last, {}),
        (TrakRidge(), last, {"ridge": True}),
        (TrakReweighted(), last, {"reweight": True}),
        (TrakEarly(), early, {}),
    ],
)
def test_each_is_the_formula_with_one_thing_changed(evidence, autograd, estimator, chosen, changes):
    wanted = formula(evidence, autograd, chosen(evidence), **changes)
    found = exact_values(estimator, evidence)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max())


def test_early_models_are_asked_for_where_there_are_none(evidence):
    few = replace(evidence, references=tuple(Reference(r.seed, r.checkpoints[-1:]) for r in evidence.references))
    with pytest.raises(
        ConfigError, match=r"trak_early: checkpoints: early needs one between epoch 0 and the last, .* \[4\]"
    ):
        TrakEarly().attribute(few)


def test_members_on_subsets_are_plain_trainings_on_random_halves(evidence, autograd):
    members = trained_on_subsets(evidence, 4, 0.5, "trak_subsets")
    assert len({member.seed for member in members}) == 4
    assert [member.examples for member in members] == [12] * 4
    wanted = formula(evidence, autograd, [member.checkpoints[-1] for member in members])
    found = exact_values(TrakSubsets(models=4), replace(evidence, references=()))
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max())


def test_a_members_parameters_are_those_of_its_run(evidence, monkeypatch):
    from workers import packs

    seen = []
    whole = packs.train_pack
    monkeypatch.setattr(
        packs, "train_pack", lambda task, runs, *args, **more: seen.extend(runs) or whole(task, runs, *args, **more)
    )
    members = trained_on_subsets(evidence, 3, 0.25, "trak_subsets")
    assert len({tuple(run.subset.tolist()) for run in seen}) == 3
    for run, member in zip(seen, members, strict=True):
        assert len(set(run.subset.tolist())) == 6
        assert (np.diff(run.subset) > 0).all()
        _, (checkpoint,) = train(evidence.task, Run(0, run.subset, run.seed, (evidence.task.recipe.epochs,)))
        for name, value in checkpoint.state.items():
            torch.testing.assert_close(member.checkpoints[-1].state[name], value, rtol=1e-9, atol=1e-12)


def test_more_members_begin_with_the_same(evidence):
    few, more = (trained_on_subsets(evidence, count, 0.5, "trak_subsets") for count in (1, 2))
    for name, value in few[0].checkpoints[-1].state.items():
        assert torch.equal(more[0].checkpoints[-1].state[name], value)
    answers = dict(TrakSubsets().attributions(evidence, {1, 2}))
    for count, made in answers.items():
        np.testing.assert_array_equal(made.values, TrakSubsets(models=count).attribute(evidence).values)
        assert made.models == count
        assert made.details["training_seconds"] > 0


def test_a_training_that_fails_is_named(toy):
    task = toy("classification", hidden=5)
    task.train_inputs[:] = torch.nan
    with pytest.raises(
        DivergedError, match="trak_subsets: the training of member 0 on 12 examples failed: DivergedError"
    ):
        trained_on_subsets(Evidence(24, 5, "margin", task=task), 1, 0.5, "trak_subsets")


class Own:
    """A task that trains itself: the mean of its examples, as a module with one parameter a feature."""

    n, t = 12, 3

    def __init__(self) -> None:
        self.inputs = torch.randn(15, 2, generator=torch.Generator().manual_seed(0))
        self.measures = {"prediction": lambda module, batch: module(batch[0]).flatten()}

    def train(self, subset, seed, keep):
        module = torch.nn.Linear(2, 1)
        with torch.no_grad():
            module.weight[:] = self.inputs[subset].mean(0)
        return module

    def batch(self, source, indices):
        chosen = self.inputs[indices if source == "train" else indices + self.n]
        return chosen, chosen.sum(1)

    def loss(self, module, batch):
        return (module(batch[0]).flatten() - batch[1]).square()


def test_a_task_that_trains_itself_trains_the_members():
    task = Own()
    evidence = Evidence(12, 3, "prediction", task=task)
    (member,) = trained_on_subsets(evidence, 1, 0.5, "trak_subsets")
    (run,) = [_run(evidence, 0, 0.5, 1)]
    torch.testing.assert_close(member.checkpoints[-1].state["weight"][0], task.inputs[run.subset].mean(0))
    made = TrakSubsets(models=2).attribute(evidence)
    assert (made.values.shape, made.models) == ((12, 3), 2)


def test_a_black_box_is_refused():
    class Box:
        n, t = 4, 2

    with pytest.raises(ConfigError, match="this sweep's task is a black box"):
        TrakSubsets().attribute(Evidence(4, 2, "margin", task=Box()))


@pytest.mark.parametrize("name", ["trak_ridge", "trak_reweighted", "trak_early", "trak_subsets"])
def test_a_variant_has_the_options_of_trak_but_for_its_own(name):
    variant, base = find(name)(), Trak()
    changed = {key for key in type(base).model_fields if getattr(variant, key) != getattr(base, key)}
    own = {
        "trak_ridge": "damping",
        "trak_reweighted": "reweight",
        "trak_early": "checkpoints",
        "trak_subsets": "models",
    }
    assert changed == {own[name]}
