"""A run's results do not depend on its pack: bits, failures, memory."""

import numpy as np
import pytest
import torch

from workers import Queries, Recipe, Run
from workers.packed.resident import Resident
from workers.packed.stacked import Lockstep
from workers.packs import train_pack
from workers.runs import OutOfMemory

RECIPE = Recipe(lr=0.05, momentum=0.9, batch_size=8, epochs=3)
PATHS = [("resident", "deep"), ("resident", "wide"), ("stacked", "gelu"), ("stacked", "tokens")]


def margins(task, runs, **options):
    return {
        outcome.row: outcome.outputs.get("margin")
        for outcome in train_pack(task, runs, ["margin"], Queries(), **options)
    }


@pytest.mark.parametrize(("path", "architecture"), PATHS)
def test_width_place_and_neighbours_do_not_change_a_bit(zoo, equal_runs, unequal_runs, path, architecture):
    task, runs = zoo(RECIPE, architecture), equal_runs(9)
    whole = margins(task, runs, method=path, width=9)
    neighbours = [Run(90 + run.row, run.subset, run.seed) for run in unequal_runs(())]
    packs = [
        margins(task, runs[::-1], method=path, width=9),
        margins(task, runs, method=path, width=2),
        margins(task, runs[:1], method=path, width=1),
        margins(task, [*neighbours, runs[4]], method=path, width=5),
    ]
    for pack in packs:
        for row in pack.keys() & whole.keys():
            np.testing.assert_array_equal(pack[row], whole[row])


@pytest.mark.parametrize(("path", "architecture"), [*PATHS, ("stacked", "batch_norm")])
def test_a_diverging_run_fails_alone(zoo, equal_runs, path, architecture):
    task, runs = zoo(RECIPE, architecture), equal_runs(4)
    expected = margins(task, runs, method=path, width=4)
    if task.train_inputs.is_floating_point():
        only = next(i for i in runs[2].subset if all(i not in run.subset for k, run in enumerate(runs) if k != 2))
        task.train_inputs[only] = torch.inf
    else:
        task.train_weights = torch.ones(task.n)
        only = next(i for i in runs[2].subset if all(i not in run.subset for k, run in enumerate(runs) if k != 2))
        task.train_weights[only] = torch.nan
    outcomes = train_pack(task, runs, ["margin"], Queries(), method=path, width=4)
    assert [None if o.failure is None else o.failure.kind for o in outcomes] == [None, None, "DivergedError", None]
    assert outcomes[2].outputs == {}
    for outcome in outcomes[:2] + outcomes[3:]:
        np.testing.assert_array_equal(outcome.outputs["margin"], expected[outcome.row])


@pytest.mark.parametrize("path", ["resident", "stacked", "alone"])
def test_an_exception_is_that_runs_own(zoo, equal_runs, path):
    class Unlucky(zoo):
        def module(self):
            if torch.rand(()).item() == unlucky:
                raise ArithmeticError("unlucky seed")
            return super().module()

    runs = equal_runs(4)
    unlucky = torch.rand((), generator=torch.Generator().manual_seed(initial_seed(runs[1].seed))).item()
    outcomes = train_pack(Unlucky(RECIPE, "relu"), runs, ["margin"], Queries(), method=path, width=4)
    assert [o.failure is None for o in outcomes] == [True, False, True, True]
    assert outcomes[1].failure.message == "unlucky seed"


def initial_seed(seed):
    from workers.randomness.streams import Streams

    return Streams(seed).initial


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory: no room")]
)
@pytest.mark.parametrize(("path", "owner"), [("resident", Resident), ("stacked", Lockstep)])
def test_too_little_memory_is_raised_for_the_pack(zoo, equal_runs, monkeypatch, path, owner, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(owner, "train", fail)
    with pytest.raises(OutOfMemory, match="no room"):
        train_pack(zoo(RECIPE, "relu"), equal_runs(3), ["margin"], Queries(), method=path, width=3)


@pytest.mark.parametrize("path", ["resident", "stacked"])
def test_queries_and_measures(zoo, equal_runs, path):
    task, runs = zoo(RECIPE, "relu"), equal_runs(2)
    queries = Queries("train", (7, 3, 3))
    packed = train_pack(task, runs, ["loss", "correct"], queries, method=path, width=2)
    alone = train_pack(task, runs, ["loss", "correct"], queries, method="alone")
    for a, b in zip(packed, alone, strict=True):
        assert list(a.outputs) == ["loss", "correct"]
        assert a.outputs["loss"].dtype == np.float32
        np.testing.assert_allclose(a.outputs["loss"], b.outputs["loss"], atol=1e-5)
        np.testing.assert_array_equal(a.outputs["correct"], b.outputs["correct"])


@pytest.mark.parametrize(("path", "architecture"), [*PATHS, ("stacked", "residual")])
def test_float32_stays_near_training_alone_for_a_few_steps(zoo, equal_runs, path, architecture):
    task, runs = zoo(RECIPE.model_copy(update={"epochs": 1}), architecture), equal_runs(3)
    packed, alone = margins(task, runs, method=path, width=3), margins(task, runs, method="alone")
    for row, values in alone.items():
        np.testing.assert_allclose(packed[row], values, atol=1e-5, rtol=1e-5)
