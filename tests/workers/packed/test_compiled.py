"""Reached with a compiled step: the same models as alone, and the same bits in any pack."""

import numpy as np
import pytest

from workers import Queries, Recipe, Run
from workers.packed import choice
from workers.packed.choice import Reached
from workers.packed.stacked import Lockstep
from workers.packed.strategy import Strategy
from workers.packs import PackTrainer, train_pack
from workers.runs import OutOfMemory

pytestmark = pytest.mark.slow  # every test compiles its own module

RECIPE = Recipe(lr=0.05, momentum=0.9, weight_decay=0.01, batch_size=8, epochs=3, precision="float64")
ADAM = RECIPE.model_copy(update={"optimizer": "adamw", "momentum": 0.0, "schedule": "cosine", "label_smoothing": 0.1})
CASES = [
    ("layer_norm", RECIPE, False),
    ("batch_norm", ADAM, False),
    ("tokens", ADAM, True),
    ("gelu", RECIPE, True),
    ("convolution", RECIPE, False),
]


@pytest.mark.parametrize(("architecture", "recipe", "weighted"), CASES)
def test_agrees_with_training_alone(zoo, compare, unequal_runs, architecture, recipe, weighted):
    task = zoo(recipe, architecture, weighted)
    compare(task, "compiled", unequal_runs((0, 1, 3)), "margin")


def margins(task, runs):
    outcomes = train_pack(task, runs, ["margin"], Queries(), method="compiled", width=6)
    assert [outcome.failure for outcome in outcomes] == [None] * len(runs)
    return {outcome.row: outcome.outputs["margin"] for outcome in outcomes}


@pytest.mark.parametrize("architecture", ["layer_norm", "gelu", "deep"])
def test_place_and_neighbours_do_not_change_a_bit(zoo, equal_runs, unequal_runs, architecture):
    task = zoo(RECIPE.model_copy(update={"precision": "float32"}), architecture)
    runs = equal_runs(6)
    whole = margins(task, runs)
    neighbours = [Run(90 + run.row, run.subset, run.seed) for run in unequal_runs(())]
    for pack in (margins(task, runs[::-1]), margins(task, runs[:1]), margins(task, [*neighbours, runs[4]])):
        for row in pack.keys() & whole.keys():
            np.testing.assert_array_equal(pack[row], whole[row])


def test_only_whole_batches_and_common_last_ones_are_compiled(zoo, unequal_runs, monkeypatch):
    task = zoo(RECIPE, "layer_norm")
    seen = []
    compiled = Lockstep._slopes_compiled

    def watched(self, parameters, buffers, x, *rest):
        seen.append(x.shape[1])
        return compiled(self, parameters, buffers, x, *rest)

    monkeypatch.setattr(Lockstep, "_slopes_compiled", watched)
    train_pack(task, unequal_runs(()), ["margin"], Queries(), method="compiled", width=4)
    n, batch = task.n, RECIPE.batch_size
    assert batch in seen
    assert set(seen) <= {batch, n // 2 % batch, (n - 1) % batch, n % batch}
    assert 10 % batch not in seen  # the last batch of a prefix of 10


@pytest.mark.parametrize(
    ("compiled", "same_bits", "chosen"),
    [
        (1e9, {"compiled", "stacked"}, ("compiled", 8)),
        (1e9, {"stacked"}, ("stacked", 4)),
        (1e9, set(), ("alone", 1)),
        (1e-9, {"compiled", "stacked"}, ("stacked", 4)),
    ],
)
def test_calibration_takes_the_fastest_whose_bits_are_the_same(zoo, monkeypatch, compiled, same_bits, chosen):
    monkeypatch.setattr(choice, "best_lockstep", lambda *_, **__: Reached(4, 1e6))
    monkeypatch.setattr(choice, "compiled_lockstep", lambda *_: Reached(8, compiled))
    monkeypatch.setattr(choice, "is_reproducible", lambda _, path, width: path in same_bits)
    plan = choice.fastest(zoo(RECIPE.model_copy(update={"compile": True}), "layer_norm"), "cpu")
    assert (plan.method, plan.width) == chosen
    assert ("would depend on its neighbours" in plan.reason) == (len(same_bits) < 2)


def test_nothing_is_compiled_unasked(zoo, monkeypatch):
    monkeypatch.setattr(choice, "best_lockstep", lambda *_, **__: Reached(4, 1e6))
    monkeypatch.delattr(choice, "compiled_lockstep")
    plan = choice.fastest(zoo(RECIPE.model_copy(update={"precision": "float32"}), "layer_norm"), "cpu")
    assert "compiled" not in plan.reason


def test_it_is_timed_and_its_bits_are_compared(zoo, monkeypatch):
    monkeypatch.setattr(choice, "_SECONDS", 0.05)
    probe = choice.Probe(zoo(RECIPE.model_copy(update={"precision": "float32"}), "layer_norm"), "cpu")
    width, rate, why_not = choice.compiled_lockstep(probe, 4)
    assert width in (8, 16)
    assert rate > 0
    assert why_not == ""
    assert choice.is_reproducible(probe, "compiled", width)


def test_out_of_memory_halves_what_is_compiled_too(zoo, equal_runs, monkeypatch):
    """A smaller pack would take as much memory as before: it is filled up to the compiled width."""
    task, runs = zoo(RECIPE.model_copy(update={"precision": "float32"}), "layer_norm"), equal_runs(4)
    trainer = PackTrainer(task, strategy=Strategy("compiled", 4, False, "as asked for"))
    whole = {run.row: run for run in trainer.train(runs, ["margin"], Queries())}
    compiled = Lockstep._slopes_compiled

    def small(self, *given):
        if self.trainer.compiled > 2:
            raise MemoryError("no room")
        return compiled(self, *given)

    monkeypatch.setattr(Lockstep, "_slopes_compiled", small)
    with pytest.raises(OutOfMemory):
        trainer.train(runs, ["margin"], Queries())
    for half in (runs[:2], runs[2:]):
        for outcome in trainer.train(half, ["margin"], Queries()):
            assert outcome.failure is None
            np.testing.assert_array_equal(outcome.outputs["margin"], whole[outcome.row].outputs["margin"])


def test_a_compiler_that_fails_is_told(zoo, monkeypatch):
    monkeypatch.setattr(choice, "Stacked", refusing(choice.Stacked))
    probe = choice.Probe(zoo(RECIPE, "layer_norm"), "cpu")
    assert choice.compiled_lockstep(probe, 4) == (0, 0.0, "RuntimeError: no compiler here")


def refusing(stacked):
    class Refusing(stacked):
        def train(self, runs):
            raise RuntimeError("no compiler here\nand a long trace")

    return Refusing
