"""Gradients and curvature on batches of any structure, of a task that trains itself, of some parameters; by plain autograd."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators.baselines.similarity import Similarity
from estimators.curvature.gauss_newton import GaussNewton
from estimators.evidence import Evidence, Reference
from estimators.gradient_based.alo import Alo
from estimators.gradient_based.datainf import DataInf
from estimators.gradient_based.gas import Gas
from estimators.gradient_based.grad_cos import GradCos
from estimators.gradient_based.grad_dot import GradDot
from estimators.gradient_based.influence import Influence
from estimators.gradient_based.representer import Representer
from estimators.gradient_based.tracin import TracIn
from estimators.gradient_based.trak import Trak
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.per_example import gradients
from workers.errors import ConfigError, TaskError
from workers.own_training import OwnTraining
from workers.runs import Checkpoint

BUDGET = 2**22


class Own:
    """The toy task of the other tests, as one that trains itself: its reference models are given, and never trained here."""

    def __init__(self, toy):
        self.toy, self.n, self.t = toy, toy.n, toy.t

    def module(self):
        return self.toy.module()

    def train(self, subset, seed, keep):
        raise AssertionError("nothing is to be trained")

    def batch(self, source, indices):
        split = "train" if source == "train" else "query"
        return {"x": getattr(self.toy, f"{split}_inputs")[indices], "y": getattr(self.toy, f"{split}_targets")[indices]}

    def loss(self, module, batch):
        return self.toy.loss(module(batch["x"]), batch["y"])

    @property
    def measures(self):
        return {name: self._of(measure) for name, measure in self.toy.measurements().items()}

    def _of(self, measure):
        return lambda module, batch: measure(module(batch["x"]), batch["y"])


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    "estimator",
    [
        TracIn(),
        Gas(norm="layer"),
        GradDot(),
        GradCos(),
        Influence(weight_decay=False, damping="mean_eigenvalue"),
        Influence(weight_decay=False, damping=0.1, solver="cg", tolerance=1e-6),
        DataInf(),
        Trak(reweight=True, damping="auto"),
        Representer(),
        Alo(penalty=0.1, damping=0.1),
        Alo(layers="all", penalty=0.1, damping=0.1),
        Similarity(),
    ],
    ids=lambda one: f"{one.name}-{getattr(one, 'solver', '')}",
)
def test_a_task_that_trains_itself_is_attributed_as_one_that_we_train(toy, evidence_of, kind, estimator):
    task = toy(kind, hidden=4)
    measure = "margin" if kind == "classification" else "prediction"
    evidence = evidence_of(task, measure)
    own = Evidence(task.n, task.t, measure, references=evidence.references, task=Own(task), seed=evidence.seed)
    estimator.check(own)
    np.testing.assert_allclose(
        estimator.attribute(own).values, estimator.attribute(evidence).values, rtol=2e-5, atol=1e-7
    )


def test_what_a_task_does_not_tell_is_refused_or_said(toy, evidence_of):
    task = toy("regression", hidden=4)
    evidence = evidence_of(task, "prediction", models=1)
    (reference,) = evidence.references
    untold = [Checkpoint(c.epoch, c.step, float("nan"), c.state) for c in reference.checkpoints]
    own = Evidence(task.n, task.t, "prediction", references=(Reference(0, tuple(untold)),), task=Own(task))
    with pytest.raises(ConfigError, match=r"the task told none for epoch 2: have train.subset, seed, keep. call keep"):
        TracIn().attribute(own)
    with pytest.raises(ConfigError, match="weights=segment needs the learning rate of every step"):
        TracIn(weights="segment").attribute(own)
    assert "no recipe" in Influence().attribute(own).details["weight_decay"]
    assert "no recipe" in Influence().attribute(own).details["damping_from"]
    named = Influence(damping="mean_eigenvalue").attribute(own)
    np.testing.assert_array_equal(Influence().attribute(own).values, named.values)
    assert "damping_from" not in named.details
    assert "weight_decay" not in Influence(weight_decay=False).attribute(own).details


class Twice(Own):
    """A loss that is no function of one call's outputs."""

    def loss(self, module, batch):
        return super().loss(module, batch) + 0 * module(batch["x"] + 1).sum(1)


@pytest.mark.parametrize("curvature", ["hessian", "empirical_fisher"])
def test_a_loss_that_calls_the_module_twice_has_these_curvatures(toy, evidence_of, curvature):
    task = toy("classification")
    evidence = evidence_of(task, "margin", models=1)
    options = {"curvature": curvature, "damping": 0.1, "weight_decay": False}
    expected = Influence(**options).attribute(evidence).values
    twice = Evidence(task.n, task.t, "margin", references=evidence.references, task=Twice(task))
    np.testing.assert_allclose(Influence(**options).attribute(twice).values, expected, rtol=1e-5, atol=1e-8)
    with pytest.raises(TaskError, match="calls the module 2 times"):
        Influence(damping=0.1).attribute(twice)


class Words(nn.Module):
    """Attention over tokens with a mask; two outputs, one of them not a floating number."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(7, 4)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens, mask):
        x = self.token(tokens)
        x = self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
        return {"logits": self.head(x.mean(1)), "longest": mask.sum(1)}


class Text:
    """Twelve texts and four queries of unequal length."""

    n, t = 12, 4

    def __init__(self, module=Words):
        generator = torch.Generator().manual_seed(2)
        self.kind = module
        self.tokens = torch.randint(7, (16, 5), generator=generator)
        self.mask = torch.arange(5) < torch.randint(1, 6, (16, 1), generator=generator)
        self.labels = torch.randint(3, (16,), generator=generator)

    def module(self):
        return self.kind()

    def train(self, subset, seed, keep):
        return self.kind()

    def batch(self, source, indices):
        rows = torch.as_tensor(indices) + (self.n if source == "task" else 0)
        return {"words": (self.tokens[rows], self.mask[rows]), "label": self.labels[rows]}

    def loss(self, module, batch):
        return F.cross_entropy(module(*batch["words"])["logits"], batch["label"], reduction="none")

    @property
    def measures(self):
        return {"loss": self.loss}


def model_of(text):
    torch.manual_seed(0)
    module = text.module().double()
    task = OwnTraining(text)
    return task, module, Model(task, Checkpoint(1, 1, 0.1, module.state_dict()), torch.float64)


def autograd(text, module, names):
    """Per-example gradients of the loss (n, p), one backward pass each."""
    module.eval()
    rows = []
    for i in range(text.n):
        module.zero_grad()
        text.loss(module, text.batch("train", np.array([i]))).sum().backward()
        rows.append(torch.cat([dict(module.named_parameters())[name].grad.flatten() for name in names]))
    return torch.stack(rows).numpy()


def test_gradients_on_nested_batches_are_autograds():
    task, module, model = model_of(text := Text())
    got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    np.testing.assert_allclose(got, autograd(text, module, list(model.parameters)), rtol=1e-9, atol=1e-12)
    assert model.batches


def test_the_gauss_newton_matrix_of_a_dictionary_of_outputs_is_the_explicit_one():
    task, module, model = model_of(text := Text())
    total = 0.0
    for i in range(text.n):
        batch = text.batch("train", np.array([i]))
        logits = module.eval()(*batch["words"])["logits"][0]
        rows = [torch.autograd.grad(z, list(module.parameters()), retain_graph=True) for z in logits]
        jacobian = np.stack([np.concatenate([g.numpy().ravel() for g in row]) for row in rows])
        p = logits.detach().softmax(0).numpy()
        total = total + jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    curvature = GaussNewton(model, task, Examples.training(task, torch.float64), BUDGET)
    np.testing.assert_allclose(curvature.dense(), total / text.n, rtol=1e-8, atol=1e-11)
    vectors = torch.randn(2, model.p, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(curvature.product(vectors), vectors.numpy() @ total / text.n, rtol=1e-8, atol=1e-11)


class Looks(Words):
    """Looks at its data, which cannot be batched."""

    def forward(self, tokens, mask):
        return super().forward(tokens, mask if bool(mask.any()) else ~mask)


def test_a_module_that_cannot_be_batched_is_differentiated_one_by_one_and_that_is_said(caplog):
    task, module, model = model_of(text := Text(Looks))
    with caplog.at_level(logging.WARNING):
        got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    np.testing.assert_allclose(got, autograd(text, module, list(model.parameters)), rtol=1e-9, atol=1e-12)
    assert not model.batches
    assert "example by example" in caplog.text


def test_only_the_parameters_of_the_patterns_are_differentiated():
    text = Text()
    task, module, _ = model_of(text)
    model = Model(task, Checkpoint(1, 1, 0.1, module.state_dict()), torch.float64, ("head.*", "*.out_proj.bias"))
    assert list(model.parameters) == ["attention.out_proj.bias", "head.weight", "head.bias"]
    got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    np.testing.assert_allclose(got, autograd(text, module, list(model.parameters)), rtol=1e-9, atol=1e-12)
    with pytest.raises(
        ConfigError, match=r"parameters: pattern 'heads.\*' matches no parameter of the module; did you mean head"
    ):
        Model(task, Checkpoint(1, 1, 0.1, module.state_dict()), torch.float64, ("head.*", "heads.*"))


class Tied(nn.Module):
    """The embedding is the last layer's weight too."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(7, 3)
        self.out = nn.Linear(3, 7, bias=False)
        self.out.weight = self.token.weight

    def forward(self, tokens, mask):
        return {"logits": self.out(self.token(tokens).mean(1))}


def test_a_tied_weight_is_one_parameter_whose_gradient_has_both_parts():
    task, module, model = model_of(text := Text(Tied))
    assert list(model.parameters) == ["token.weight"]
    got = gradients(model, task.losses, Examples.training(task, torch.float64), BUDGET)
    np.testing.assert_allclose(got, autograd(text, module, ["token.weight"]), rtol=1e-9, atol=1e-12)
