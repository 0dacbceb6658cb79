"""Checks that any estimator must pass, for those who write one: `check_estimator(Mine())` in a test of their own.

Each check can be called alone and raises AssertionError with one line that says what is wrong. An estimator on runs is given an
additive game, whose effects are known; one on reference models a small convex problem, on which leaving an example out can be
retrained exactly enough to know which examples help.

    from estimators.testing import check_estimator

    def test_mine_keeps_the_contract():
        check_estimator(Mine(strength=2.0))
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence, Reference, Runs
from workers.errors import ConfigError, DataError
from workers.runs import Queries, Run

if TYPE_CHECKING:
    from workers.task import Classification

EFFECTS = np.array([1.5, -1.0, 0.75, -2.0, 0.5, 1.0, -0.25, 0.0])
"""What each of the game's examples adds to the first query's output; the second query's is twice that."""
SCALES = np.array([1.0, 2.0])


class Game:
    """A black box: a model is its subset, and its outputs are the sums of its examples' effects, whatever the seed."""

    n, t = len(EFFECTS), len(SCALES)

    def train(self, subset: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Return the subset."""
        return subset

    def measure(self, model: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Return the sum of effects for each query."""
        return {"worth": EFFECTS[model].sum() * SCALES}

    def measure_empty(self) -> dict[str, NDArray[np.float64]]:
        """Return nothing gained."""
        return {"worth": np.zeros(self.t)}


def game_evidence(*needs: str, queries: Queries | None = None) -> Evidence:
    """Return what an estimator with these needs sees of the game: one design for each, and no noise."""
    designs = {need: _runs(need) for need in needs if need not in ("checkpoints", "gradients")}
    given = queries or Queries()
    return Evidence(
        Game.n, Game.t, "worth", runs=designs, task=Game(), queries=given, seed=3, empty=np.zeros(Game.t, np.float32)
    )


def _runs(need: str) -> Runs:
    """Return runs of a design that meets a need."""
    n, rng = Game.n, np.random.default_rng(5)
    permutations = None
    if need == "subsets":
        kind, masks = "bernoulli", np.array(list(product([False, True], repeat=n)))[1:]
    elif need == "permutations":
        kind = need
        orders = [rng.permutation(n) for _ in range(6)]
        masks = np.array([np.isin(np.arange(n), order[:size]) for order in orders for size in range(1, n + 1)])
        permutations = np.repeat(np.arange(len(orders)), n)
    elif need == "leave_group_out":
        kind, masks = need, np.arange(n) // 2 != np.arange(n // 2)[:, None]
    elif need == "leave_one_out":
        kind, masks = need, ~np.eye(n, dtype=bool)
    else:
        kind, masks = "full", np.ones((2, n), dtype=bool)
    subsets = np.zeros(2, np.int64) if kind == "full" else np.arange(len(masks))
    repeats = np.arange(2) if kind == "full" else np.zeros(len(masks), np.int64)
    outputs = (masks @ EFFECTS)[:, None] * SCALES
    return Runs(need, kind, "worth", masks, outputs.astype(np.float32), subsets, repeats, permutations)


def _task() -> Classification:
    """Return logistic regression on two overlapping clouds: convex, 24 examples, 4 queries that lie well inside the clouds."""
    import torch
    from torch import nn

    from workers.recipe import Recipe
    from workers.task import Classification

    class Clouds(Classification):
        def __init__(self) -> None:
            rng = torch.Generator().manual_seed(4)
            self.recipe = Recipe(lr=0.5, batch_size=24, epochs=60, precision="float64", weight_decay=0.01)
            self.train_targets = torch.arange(24) % 2
            signs = 2.0 * self.train_targets.double() - 1
            noise = torch.randn(24, 2, generator=rng, dtype=torch.float64)
            self.train_inputs = signs[:, None] * torch.tensor([1.0, 0.5], dtype=torch.float64) + noise
            self.query_targets = torch.tensor([0, 1, 0, 1])
            sides = 2.0 * self.query_targets.double() - 1
            self.query_inputs = sides[:, None] * torch.tensor([[1.0, 0.5], [1.0, 0.5], [0.8, 0.8], [0.8, 0.8]]).double()

        def module(self) -> nn.Module:
            return nn.Linear(2, 2)

    return Clouds()


def model_evidence() -> Evidence:
    """Return two reference models of the convex task, with checkpoints after epochs 30 and 60, and the margin as measure."""
    from workers.training.alone import train

    task = _task()
    everything = np.arange(task.n)
    references = tuple(Reference(seed, train(task, Run(seed, everything, seed, (30, 60)))[1]) for seed in (0, 1))
    return Evidence(task.n, task.t, "margin", references=references, task=task, seed=3)


def evidence_for(estimator: Estimator) -> Evidence:
    """Return evidence that meets the estimator's needs."""
    if estimator.needs & {"checkpoints", "gradients"}:
        return model_evidence()
    train = _asks_for_training_queries(estimator)
    return game_evidence(*sorted(estimator.needs), queries=Queries("train", (0, 1)) if train else None)


def _asks_for_training_queries(estimator: Estimator) -> bool:
    """Say whether the estimator refuses queries that are the task's own (memorization does)."""
    try:
        estimator.check(game_evidence())
    except ConfigError as error:
        return "source: train" in str(error)
    return False


def check_shapes(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """Values are (n, t) float32 and finite; what else there is has its shape; standard errors are not negative."""
    evidence = evidence or evidence_for(estimator)
    made = estimator.attribute(evidence)
    n, t = evidence.n, evidence.t
    shapes = {"values": (n, t), "bias": (t,), "standard_error": (n, t)}
    shapes |= {"utility": (n,), "utility_standard_error": (n,)}
    for name, shape in shapes.items():
        array = getattr(made, name)
        if array is None:
            continue
        assert array.shape == shape, f"{name} has shape {array.shape}, expected {shape}"
        assert array.dtype == np.float32, f"{name} is {array.dtype}, expected float32"
        if "error" in name:
            assert not (array < 0).any(), f"{name} has negative entries"
        else:
            assert np.isfinite(array).all(), f"{name} is not finite everywhere"
    assert made.models >= 0, f"models is {made.models}, expected how many trained models it used"
    unknown = set(made.fitted_on) - set(evidence.runs)
    assert not unknown, f"fitted_on names designs that it was not given: {sorted(unknown)}"


def check_sign(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """An attribution is the effect of *including* an example on the measured output: helpful examples are positive.

    On the game, values must go up with the effects that are known. On the convex task, with what retraining without each
    example does to the margin.
    """
    evidence = evidence or evidence_for(estimator)
    values = estimator.attribute(evidence).values.astype(np.float64)
    expected = _retrained(evidence) if evidence.references else _known(estimator, evidence)
    measured = float(np.corrcoef(values.ravel(), expected.ravel())[0, 1])
    assert measured > 0.3, (
        f"the values' correlation with the true effects of including examples is {measured:.2f}, expected it clearly positive: "
        "is the sign that of leaving out?"
    )


def _known(estimator: Estimator, evidence: Evidence) -> NDArray[np.float64]:
    """Return the game's effects (n, t); of whole groups where groups were left out."""
    effects = EFFECTS
    if "leave_group_out" in estimator.needs:
        effects = EFFECTS.reshape(-1, 2).sum(axis=1).repeat(2)
    return np.outer(effects, SCALES)


def _retrained(evidence: Evidence) -> NDArray[np.float64]:
    """Return what including each example does to each query's margin, by training without it (n, t)."""
    import torch

    from workers.training.alone import train

    task = evidence.differentiable()
    inputs, targets = task.examples(evidence.queries)

    def outputs(subset: NDArray[np.int64]) -> NDArray[np.float64]:
        module, _ = train(task, Run(0, subset, 0))
        with torch.no_grad():
            found: NDArray[np.float64] = task.measurement(evidence.measure)(module(inputs), targets).double().numpy()
        return found

    everything = np.arange(task.n)
    full = outputs(everything)
    return np.stack([full - outputs(np.delete(everything, i)) for i in everything])


def check_determinism(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """The same evidence gives the same bits; whatever is drawn comes from the evidence's seed."""
    evidence = evidence or evidence_for(estimator)
    first, second = estimator.attribute(evidence), estimator.attribute(evidence)
    for name in ("values", "bias", "standard_error", "utility", "utility_standard_error"):
        assert _bits(first, name) == _bits(second, name), f"{name} differ between two calls on the same evidence"


def _bits(made: Attribution, name: str) -> bytes | None:
    array = getattr(made, name)
    return None if array is None else array.tobytes()


def check_options(estimator: Estimator) -> None:
    """Options are frozen, described, refuse unknown keys, and come back from JSON."""
    kind: Any = type(estimator)
    for key, option in kind.model_fields.items():
        assert option.description, f"option {key!r} has no description: the schema shows it"
    assert kind.model_validate_json(estimator.model_dump_json()) == estimator, "options do not come back from JSON"
    for key in kind.model_fields:
        try:
            setattr(estimator, key, getattr(estimator, key))
        except ValidationError:
            continue
        raise AssertionError(f"option {key!r} can be changed: expected a frozen model")
    try:
        kind(no_such_option=1)
    except ValidationError:
        return
    raise AssertionError("an unknown option is taken: expected extra='forbid'")


def check_refusals(estimator: Estimator) -> None:
    """Evidence without what is needed is refused by ConfigError or DataError, before or while attributing, in one line."""
    if not estimator.needs:
        return
    nothing = replace(evidence_for(estimator), runs={}, references=(), task=Game())
    try:
        estimator.check(nothing)
        estimator.attribute(nothing)
    except (ConfigError, DataError) as error:
        lines = len(str(error).splitlines())
    else:
        raise AssertionError(f"evidence without {', '.join(sorted(estimator.needs))} is not refused")
    assert lines == 1, f"the refusal has {lines} lines, expected one"


def check_estimator(estimator: Estimator, *, attributes: bool = True) -> None:
    """Run all checks; without `attributes` the one of the sign is left out, for values that say nothing of the data."""
    check_options(estimator)
    evidence = evidence_for(estimator)
    check_shapes(estimator, evidence)
    if attributes:
        check_sign(estimator, evidence)
    check_determinism(estimator, evidence)
    check_refusals(estimator)
