import numpy as np
import pytest
import torch

from workers import Queries, Recipe, Run, packs
from workers.packed.resident import Resident
from workers.packed.strategy import Strategy
from workers.packs import PackTrainer, train_pack
from workers.runs import OutOfMemory


def subsets(count, n=37):
    rng = np.random.default_rng(0)
    return [Run(row, np.sort(rng.permutation(n)[: n // 2]), seed=100 + row) for row in range(count)]


def test_a_black_box_gives_its_measure_of_every_run(mean_task):
    runs = [Run(3, np.array([0, 2]), seed=5), Run(9, np.array([0, 4, 8]), seed=0)]
    first, second = train_pack(mean_task, runs, ["value"], Queries())
    assert (first.row, second.row) == (3, 9)
    assert first.outputs["value"].tolist() == [6, 7, 8, 9]
    assert second.outputs["value"].tolist() == [4, 5, 6, 7]
    assert first.outputs["value"].dtype == np.float32


def test_queries_choose_outputs(mean_task):
    (outcome,) = train_pack(mean_task, [Run(0, np.array([0, 2]), 5)], ["value"], Queries("task", (3, 1)))
    assert outcome.outputs["value"].tolist() == [9, 7]
    (outcome,) = train_pack(mean_task, [Run(0, np.array([0, 2]), 5)], ["value"], Queries("train", (9, 0)))
    assert outcome.outputs["value"].tolist() == [54, 0]


def test_an_exception_becomes_that_runs_failure_alone(mean_task):
    runs = [Run(0, np.array([0]), 0), Run(1, np.array([1]), 0), Run(2, np.array([0]), 1)]
    good, bad, other = train_pack(mean_task, runs, ["value"], Queries())
    assert good.failure is None
    assert other.failure is None
    assert mean_task.train_calls == 3
    assert bad.outputs == {}
    assert (bad.failure.kind, bad.failure.message) == ("ArithmeticError", "example 0 is missing")
    assert "in train" in bad.failure.traceback


@pytest.mark.parametrize(
    ("measure", "kind", "message"),
    [
        ("nan", "DivergedError", "not finite for 4 of 4"),
        ("scalar", "TaskError", r"shape (), expected (4,)"),
        ("valu", "TaskError", "did you mean value"),
    ],
)
def test_bad_measures_are_failures(mean_task, measure, kind, message):
    (outcome,) = train_pack(mean_task, [Run(0, np.array([0]), 0)], [measure], Queries())
    assert outcome.failure.kind == kind
    assert message in outcome.failure.message


def test_a_diverged_network_is_a_failure(blobs):
    task = blobs(Recipe(lr=1e38, epochs=3), hidden=8)
    (outcome,) = train_pack(task, subsets(1), ["loss"], Queries())
    assert outcome.failure.kind == "DivergedError"
    assert outcome.outputs == {}


@pytest.mark.parametrize("error", [MemoryError, torch.cuda.OutOfMemoryError])
def test_too_little_memory_is_raised_for_the_whole_pack(mean_task, monkeypatch, error):
    def train(subset, seed):
        raise error("no room")

    monkeypatch.setattr(mean_task, "train", train)
    with pytest.raises(OutOfMemory, match="no room"):
        train_pack(mean_task, subsets(2), ["value"], Queries())


def test_a_run_is_the_same_again_and_whatever_its_neighbours(blobs):
    recipe = Recipe(lr=0.1, momentum=0.9, batch_size=8, epochs=3)
    task, runs = blobs(recipe, hidden=8, dropout=0.3), subsets(3)
    together, again, alone, reversed_ = (
        {outcome.row: outcome.outputs["margin"] for outcome in train_pack(task, pack, ["margin"], Queries())}
        for pack in (runs, runs, runs[1:2], runs[::-1])
    )
    for row in together:
        np.testing.assert_array_equal(together[row], again[row])
        np.testing.assert_array_equal(together[row], reversed_[row])
    np.testing.assert_array_equal(together[1], alone[1])
    assert not np.array_equal(together[0], together[1])


def test_what_a_trainer_prepared_serves_its_next_packs_with_the_same_bits(blobs, monkeypatch):
    task, runs = blobs(Recipe(lr=0.1, batch_size=8, epochs=2), hidden=8, dropout=0.3), subsets(4)
    whole = {outcome.row: outcome.outputs["margin"] for outcome in train_pack(task, runs, ["margin"], Queries())}
    trainer, made = PackTrainer(task, strategy=Strategy("resident", 1, False, "")), []
    of = Resident.of
    monkeypatch.setattr(Resident, "of", lambda task: made.append(task) or of(task))
    for pack in (runs[2:], runs[:2]):
        for outcome in trainer.train(pack, ["margin"], Queries()):
            np.testing.assert_array_equal(outcome.outputs["margin"], whole[outcome.row])
    assert made == [task]


@pytest.mark.parametrize("method", ["alone", "resident", "stacked"])
def test_runs_of_the_same_row_are_different_runs(blobs, method):
    """Rows are unique within a design; a pack may hold runs of two."""
    task, (first, second) = blobs(Recipe(lr=0.1, batch_size=8, epochs=2), hidden=8), subsets(2)
    wanted = [train_pack(task, [run], ["margin"], Queries(), method=method)[0] for run in (first, second)]
    found = train_pack(task, [first, Run(first.row, second.subset, second.seed)], ["margin"], Queries(), method=method)
    assert [one.row for one in found] == [first.row, first.row]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.outputs["margin"], other.outputs["margin"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label", [3, -1, 100_000_000])
def test_a_label_without_an_output_is_a_failure_and_never_reaches_the_kernels(blobs, label):
    task = blobs(Recipe(batch_size=8, epochs=1), hidden=8)
    assert Resident.of(task) is not None
    task.train_targets[5] = label
    assert Resident.of(task) is None
    trainer = PackTrainer(task, strategy=Strategy("resident", 1, False, ""))
    (outcome,) = trainer.train([Run(0, np.arange(task.n), 0)], ["margin"], Queries())
    assert (outcome.failure.kind, outcome.outputs) == ("IndexError", {})


def test_a_choice_that_failed_is_made_again_for_the_next_pack(blobs, monkeypatch):
    chosen = [Strategy("alone", 1, False, "broken", failed=True), Strategy("alone", 1, False, "timed")]
    monkeypatch.setattr(packs, "strategy_of", lambda task, device: chosen.pop(0))
    trainer = PackTrainer(blobs(Recipe(batch_size=8, epochs=1)))
    for left in (1, 0, 0):
        (outcome,) = trainer.train(subsets(1), ["margin"], Queries())
        assert outcome.failure is None
        assert len(chosen) == left
