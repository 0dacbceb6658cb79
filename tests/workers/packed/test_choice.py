import pytest
import torch

from workers import Recipe
from workers.packed import choice
from workers.packed.calibration import strategy_of
from workers.packed.choice import Probe, best_lockstep, compiled_lockstep, fastest, is_reproducible
from workers.packed.stacked import Stacked
from workers.randomness.streams import Streams

RECIPE = Recipe(lr=0.05, batch_size=8, epochs=2)


def test_convolutions_are_measured_in_both_layouts_and_in_lockstep(zoo):
    plan = fastest(zoo(RECIPE, "convolution"), "cpu")
    assert "channels last" in plan.reason
    assert "lockstep by" in plan.reason


def test_a_timed_training_has_whole_steps(zoo):
    probe = Probe(zoo(RECIPE.model_copy(update={"batch_size": 4, "accumulate": 2}), "relu"), "cpu")
    probe.steps = 3
    assert [len(run.subset) for run in probe.runs(2)] == [24, 24]


def test_what_cannot_run_in_lockstep_is_trained_alone(zoo):
    class Branching(zoo):
        def loss(self, outputs, targets):
            assert float(outputs.detach().sum()) < float("inf")
            return super().loss(outputs, targets)

    plan = fastest(Branching(RECIPE, "relu"), "cpu")
    assert plan.method == "alone"
    assert (
        "; lockstep is not possible: RuntimeError: vmap: It looks like you're either (1) calling .item()" in plan.reason
    )
    assert "\n" not in plan.reason
    asked = strategy_of(Branching(RECIPE, "relu"), "cpu", method="stacked")
    assert (asked.method, asked.width) == ("stacked", 1)
    assert asked.reason.startswith("as asked for; lockstep is not possible: RuntimeError: vmap: ")


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, ValueError])
def test_a_fault_of_the_task_s_own_is_not_taken_for_something_that_cannot_be_batched(zoo, error):
    class Hot(zoo):
        """Its third run, which only lockstep and who asks why it failed train, is too hot."""

        def module(self):
            if float(torch.rand(())) == third:
                raise error("the module is too hot")
            return super().module()

    third = float(torch.rand((), generator=torch.Generator().manual_seed(Streams(2).initial)))
    with pytest.raises(error, match=r"^the module is too hot$"):
        fastest(Hot(RECIPE, "gelu"), "cpu")
    with pytest.raises(error, match=r"^the module is too hot$"):
        compiled_lockstep(Probe(Hot(RECIPE, "gelu"), "cpu"), 4)


def test_too_little_memory_is_no_fault_of_the_task_s(zoo, monkeypatch):
    probe = Probe(zoo(RECIPE, "gelu"), "cpu")
    monkeypatch.setattr(Probe, "alone", lambda self: pytest.fail("trained again"))

    def train(self, runs):
        raise MemoryError("no room")

    monkeypatch.setattr(Stacked, "train", train)
    assert best_lockstep(probe) == (1, 0.0, "MemoryError: no room")
    monkeypatch.setattr(choice, "largest_width", lambda *_: 3)
    assert best_lockstep(probe) == (1, 0.0, "4 models do not fit into memory")


def test_reproducibility_is_seen(zoo):
    assert is_reproducible(Probe(zoo(RECIPE, "linear"), "cpu"), "stacked", 5)
    assert not is_reproducible(Probe(zoo(RECIPE, "layer_norm"), "cpu"), "stacked", 9)


def test_a_hopeless_way_is_not_timed_again(zoo):
    probe, calls = Probe(zoo(RECIPE, "linear"), "cpu"), []
    (rate,) = probe.rates([lambda runs: calls.append(probe.alone()(runs))], least=1e9)
    assert len(calls) == 1
    assert 0 < rate < 1e9


@pytest.mark.parametrize(("seconds", "trained"), [(0.01, 1 + 4), (0.3, 1 + 4), (0.6, 1 + 2), (5, 1 + 1)])
def test_long_trainings_are_timed_in_fewer_rounds(zoo, monkeypatch, seconds, trained):
    probe, calls, now = Probe(zoo(RECIPE, "linear"), "cpu"), [], [0.0]

    def train(runs):
        calls.append(runs)
        now[0] += seconds

    monkeypatch.setattr(choice.time, "thread_time", lambda: now[0])
    assert probe.rates([train, train]) == pytest.approx([1 / seconds] * 2)
    assert len(calls) == 2 * trained


@pytest.mark.parametrize("pack", [4, 6, 12])
def test_no_more_models_are_tried_together_than_a_pack_has(zoo, monkeypatch, pack):
    tried = []

    def rates(self, ways, count=1, rounds=4, least=0.0):
        tried.append(count)
        return [float(count) for _ in ways]  # the wider the better

    task = zoo(RECIPE.model_copy(update={"compile": True}), "layer_norm")
    monkeypatch.setattr(Probe, "rates", rates)
    monkeypatch.setattr(choice, "is_reproducible", lambda *_: True)
    found = fastest(task, "cpu", pack)
    assert max(tried) == found.width == pack
    tried.clear()
    assert fastest(task, "cpu").width == max(tried) > 12


def test_packs_too_small_for_lockstep_are_told(zoo):
    probe = Probe(zoo(RECIPE, "gelu"), "cpu")
    probe.most = 3
    assert best_lockstep(probe) == (1, 0.0, "4 models do not fit into packs of 3")
