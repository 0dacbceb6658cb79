"""What other libraries compute is what ours compute where the definitions coincide; what they cannot take is one line."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from estimators import registry
from estimators.adapters.dattri_influence import DattriInfluence
from estimators.adapters.dattri_tracin import DattriTracin
from estimators.adapters.kronfluence_ekfac import KronfluenceEkfac
from estimators.adapters.peer import PeerEstimator
from estimators.adapters.traker_trak import TrakerTrak
from estimators.evidence import Evidence
from estimators.gradient_based.ekfac import Ekfac
from estimators.gradient_based.grad_dot import GradDot
from estimators.gradient_based.influence import Influence
from estimators.gradient_based.tracin import TracIn
from estimators.gradient_based.trak import Trak
from estimators.trials import model_evidence
from workers import Classification, Recipe, plugins
from workers.errors import ConfigError, LackingError

ADAPTERS = (KronfluenceEkfac, TrakerTrak, DattriInfluence, DattriTracin)
RECIPE = Recipe(lr=0.3, batch_size=8, epochs=4, weight_decay=0.01)


def needs(adapter: type[PeerEstimator]) -> pytest.MarkDecorator:
    there = find_spec(adapter.imported_as) is not None
    return pytest.mark.skipif(not there, reason=f"{adapter.library} is not installed")


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Return the least rank correlation of a query."""
    return min(spearmanr(a, b)[0] for a, b in zip(one.T, other.T, strict=True))


def mean_alike(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean rank correlation over queries."""
    return float(np.mean([spearmanr(a, b)[0] for a, b in zip(one.T, other.T, strict=True)]))


@pytest.fixture(scope="module")
def evidence(toy: Callable[..., Any], evidence_of: Callable[..., Evidence]) -> Evidence:
    """Two reference models of an MLP, three classes."""
    return evidence_of(toy("classification", hidden=6, recipe=RECIPE), "margin")


@needs(KronfluenceEkfac)
@pytest.mark.filterwarnings("ignore")
def test_kronfluence_identity_is_grad_dot(evidence: Evidence) -> None:
    theirs, ours = KronfluenceEkfac(strategy="identity").attribute(evidence), GradDot().attribute(evidence)
    assert alike(theirs.values, ours.values) > 0.999
    np.testing.assert_allclose(theirs.values * evidence.n, ours.values, rtol=1e-3, atol=1e-5)
    assert theirs.models == 2
    assert theirs.details["library"].startswith("kronfluence 1")


@needs(KronfluenceEkfac)
@pytest.mark.filterwarnings("ignore")
def test_kronfluence_ekfac_is_ours_with_the_true_targets(evidence: Evidence) -> None:
    theirs = KronfluenceEkfac(fisher="empirical").attribute(evidence)
    ours = Ekfac(fisher="empirical", damping="mean_eigenvalue", weight_decay=False).attribute(evidence)
    assert alike(theirs.values, ours.values) > 0.99
    slope = float((theirs.values * ours.values).sum() / (ours.values**2).sum())
    assert slope == pytest.approx(1, abs=0.05), "in units of the measure, as ours are"


@needs(KronfluenceEkfac)
@pytest.mark.filterwarnings("ignore")
def test_kronfluence_draws_its_targets_by_the_seed(evidence: Evidence) -> None:
    one, same = (KronfluenceEkfac(models=1).attribute(evidence).values for _ in range(2))
    other = KronfluenceEkfac(models=1).attribute(replace(evidence, seed=12)).values
    assert (one == same).all()
    assert not (one == other).all()
    ours = Ekfac(models=1, damping="mean_eigenvalue", weight_decay=False, samples=50).attribute(evidence).values
    assert mean_alike(one, ours) > 0.8


@needs(DattriInfluence)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("solver", "iterations"), [("explicit", 10), ("cg", 12)])
def test_dattri_influence_is_ours_with_the_hessian(evidence: Evidence, solver: Any, iterations: int) -> None:
    theirs = DattriInfluence(solver=solver, damping=0.5, max_iterations=iterations).attribute(evidence)
    ours = Influence(curvature="hessian", solver="exact", damping=0.5).attribute(evidence)
    assert theirs.details["damping"] == pytest.approx(0.51), "the recipe's weight decay is in both"
    np.testing.assert_allclose(theirs.values, ours.values, rtol=2e-3, atol=1e-6)


@needs(DattriInfluence)
@pytest.mark.filterwarnings("ignore")
def test_dattri_takes_the_damping_that_training_suggests(evidence: Evidence) -> None:
    default, given = DattriInfluence(), DattriInfluence(damping=1 / (12 * 0.3))  # twelve steps of rate 0.3
    assert default.shift(evidence.task) == pytest.approx(given.shift(evidence.task))  # type: ignore[arg-type]


@needs(DattriInfluence)
@pytest.mark.filterwarnings("ignore")
def test_dattri_that_goes_on_after_it_has_converged_is_told() -> None:
    with pytest.raises(ConfigError, match=r"are not finite; .* expected fewer"):
        DattriInfluence(damping=0.5, max_iterations=300).attribute(model_evidence())


@needs(DattriTracin)
@pytest.mark.filterwarnings("ignore")
def test_dattri_tracin_is_ours(evidence: Evidence) -> None:
    theirs, ours = DattriTracin().attribute(evidence), TracIn().attribute(evidence)
    np.testing.assert_allclose(theirs.values, ours.values, rtol=1e-3, atol=1e-6)
    assert theirs.details["epochs"] == [2, 4]
    some = DattriTracin(epochs=(2,), memory_gb=1e-6).attribute(evidence), TracIn(epochs=(2,)).attribute(evidence)
    np.testing.assert_allclose(some[0].values, some[1].values, rtol=1e-3, atol=1e-6)


@needs(TrakerTrak)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dimension", "damping"), [(8, 0.0), (1000, 0.1)])
def test_traker_orders_as_ours_at_the_same_dimension(evidence: Evidence, dimension: int, damping: float) -> None:
    """Means over seeds of the projection, which is another one in theirs; of one model, as they weigh several in another way.

    Their gradients are divided by the root of p, here 45, and their projection is not by that of its dimensions.
    """

    def ordered(estimator: Any, seeds: range) -> np.ndarray:
        made = [estimator.attribute(replace(evidence, seed=seed)).values for seed in seeds]
        return np.mean([one / np.abs(one).mean() for one in made], axis=0)

    theirs = ordered(TrakerTrak(models=1, project_dim=dimension, damping=damping * dimension / 45), range(6))
    ours = Trak(models=1, project_dim=dimension, projection="rademacher", damping=damping)
    one, other = ordered(ours, range(6)), ordered(ours, range(6, 12))
    agreement = mean_alike(theirs, one)
    assert agreement > mean_alike(one, other) - 0.1, "as two of ours, with other projections, agree"
    assert agreement > (0.95 if dimension > 100 else 0.7)


@needs(TrakerTrak)
@pytest.mark.filterwarnings("ignore")
def test_traker_s_ensembles_are_one_pass(evidence: Evidence) -> None:
    one, two = (made for _, made in TrakerTrak(project_dim=8).attributions(evidence, {1, 2}))
    assert (one.values == TrakerTrak(project_dim=8, models=1).attribute(evidence).values).all()
    assert (two.values == TrakerTrak(project_dim=8).attribute(evidence).values).all()
    assert not np.allclose(one.values, two.values)


@needs(TrakerTrak)
@pytest.mark.filterwarnings("ignore")
def test_a_singular_gram_matrix_is_one_line() -> None:
    """Of two classes the gradients of a linear model's margins span three of its six dimensions."""
    with pytest.raises(ConfigError, match=r"is singular: expected a smaller project_dim than 5"):
        TrakerTrak(project_dim=5).attribute(model_evidence())


class Embedded(Classification):
    """Tokens: a layer that kronfluence does not track."""

    recipe = RECIPE
    train_inputs = torch.arange(6)
    train_targets = torch.arange(6) % 2
    query_inputs, query_targets = train_inputs[:2], train_targets[:2]

    def module(self) -> nn.Module:
        return nn.Sequential(nn.Embedding(6, 3), nn.Linear(3, 2))


class Structured(Embedded):
    train_inputs = {"tokens": torch.arange(6)}  # type: ignore[assignment]  # noqa: RUF012


class Two(Embedded):
    def module(self) -> nn.Module:
        class Both(nn.Linear):
            def forward(self, x: torch.Tensor) -> Any:
                return super().forward(torch.stack([x, x], 1).float()), x

        return Both(2, 2)


class Fixed(Embedded):
    def module(self) -> nn.Module:
        made = super().module()
        made[1].bias.requires_grad_(False)
        return made


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Structured(), "is given tensors, found train_inputs of dict"),
        (Two(), "takes modules with one output, found tuple"),
        (Fixed(), "differentiates all parameters, found 1.bias held fixed"),
    ],
)
def test_what_no_library_takes_is_one_line(adapter: type[PeerEstimator], task: Classification, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        adapter().check(Evidence(6, 2, "margin", task=task))
    assert str(refused.value).startswith(f"{adapter.name}: {adapter.library} ")


@pytest.mark.parametrize(
    ("adapter", "measure", "message"),
    [
        (KronfluenceEkfac(), "margin", r"found parameters of 0 \(Embedding\)"),
        (TrakerTrak(), "loss", "traker attributes margins, found measure 'loss'"),
        (TrakerTrak(), "margin", "expected project_dim of at most 6, or damping above 0"),
        (DattriInfluence(solver="explicit", memory_gb=1e-7), "margin", "expected solver: cg"),
        (DattriTracin(dropout=2), "margin", "dropout is not for dattri"),
        (DattriTracin(parameters=("1.*",)), "margin", "parameters is not for dattri"),
    ],
)
def test_what_one_library_cannot_take_is_one_line(adapter: PeerEstimator, measure: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adapter.check(Evidence(6, 2, measure, task=Embedded()))


def test_a_task_that_trains_itself_is_refused() -> None:
    class Own:
        n, t = 4, 2
        measures = {"margin": lambda module, batch: module(batch)}  # noqa: RUF012

        def train(self, subset: Any, seed: int, keep: Any) -> nn.Module:
            return nn.Linear(1, 1)

        def batch(self, source: str, indices: Any) -> torch.Tensor:
            return torch.zeros(len(indices), 1)

        def loss(self, module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
            return module(batch)[:, 0]

    with pytest.raises(ConfigError, match="is given no task that trains itself, expected one of level two"):
        DattriTracin().check(Evidence(4, 2, "margin", task=Own()))  # type: ignore[arg-type]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Offer the adapters, as the installed package does."""
    entries = tuple(EntryPoint(one.name, f"{one.__module__}:{one.__name__}", registry.GROUP) for one in ADAPTERS)
    monkeypatch.setattr(plugins, "offered", lambda group: entries if group == registry.GROUP else ())
    for cached in (registry.find, registry.names):
        cached.cache_clear()
    yield
    for cached in (registry.find, registry.names):
        cached.cache_clear()


def test_without_its_library_an_adapter_is_not_there_and_the_remedy_is_said(
    offered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("estimators.adapters.peer"), "find_spec", lambda name: None)
    assert not {one.name for one in ADAPTERS} & set(registry.names())
    assert not {one.name for one in ADAPTERS} & set(registry.loadable())
    with pytest.raises(LackingError) as refused:
        registry.find("traker_trak")
    assert str(refused.value) == "estimator 'traker_trak' needs traker: pip install 'counterfactory[traker]'"


def test_with_its_library_an_adapter_is_there(offered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("estimators.adapters.peer"), "find_spec", lambda name: object())
    for one in ADAPTERS:
        assert registry.find(one.name) is one
        assert one.name in registry.names()
