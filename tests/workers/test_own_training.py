"""A task that trains itself: its runs, its checkpoints, and what estimators see of it."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workers import Queries, Run
from workers.errors import DataError, TaskError
from workers.own_training import OwnTraining, gradient_task, seeded
from workers.packs import train_pack
from workers.task_checks import check_contract


class Loop:
    """Softmax regression by a loop of its own, on dictionaries; draws from three global generators."""

    n, t = 20, 6

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(26, 3, generator=generator)
        self.y = (self.x[:, 0] > 0).long()
        self.told = ((1, 3, 0.5), (2, 6, 0.25))

    def train(self, subset, seed, keep):
        module = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(module.parameters(), 0.5)
        told = iter(self.told)
        for _ in range(2):
            order = np.random.permutation(subset)  # noqa: NPY002
            random.shuffle(order)
            for batch in torch.from_numpy(order).split(8):
                optimizer.zero_grad()
                F.cross_entropy(module(self.x[batch]), self.y[batch]).backward()
                optimizer.step()
            if (now := next(told, None)) is not None:
                keep(*now, module)
        return module

    def batch(self, source, indices):
        rows = torch.as_tensor(indices) + (self.n if source == "task" else 0)
        return {"x": self.x[rows], "y": self.y[rows]}

    def loss(self, module, batch):
        return F.cross_entropy(module(batch["x"]), batch["y"], reduction="none")

    @property
    def measures(self):
        return {"loss": self.loss, "wide": lambda module, batch: module(batch["x"])}


@pytest.fixture
def task():
    return Loop()


def run(epochs=(), subset=range(20), seed=4, row=0):
    return Run(row, np.array(subset, dtype=np.int64), seed, tuple(epochs))


def test_a_run_is_its_training_measured_by_the_tasks_own_functions(task):
    (outcome,) = train_pack(task, [run()], ["loss"], Queries())
    with seeded(4):
        module = task.train(np.arange(20), 4, lambda *_: None).eval()
    expected = task.loss(module, task.batch("task", np.arange(6))).detach().numpy()
    np.testing.assert_array_equal(outcome.outputs["loss"], expected)
    (trained_on,) = train_pack(task, [run()], ["loss"], Queries("train", (5, 2)))
    np.testing.assert_array_equal(
        trained_on.outputs["loss"], task.loss(module, task.batch("train", np.array([5, 2]))).detach().numpy()
    )


def test_the_seed_governs_all_global_generators_and_leaves_them_as_they_were(task):
    def outputs(seed, state):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002
        torch.manual_seed(state)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        found = train_pack(task, [run(seed=seed)], ["loss"], Queries())[0].outputs["loss"]
        assert random.getstate() == before[0]
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[2])
        return found

    first, again, other = outputs(4, 0), outputs(4, 1), outputs(5, 0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_epochs_asked_for_are_kept_and_the_last_is_the_finished_module(task):
    (outcome,) = train_pack(task, [run((1, 3))], ["loss"], Queries())
    first, last = outcome.checkpoints
    assert (first.epoch, first.step, first.learning_rate) == (1, 3, 0.5)
    assert (last.epoch, last.step, last.learning_rate) == (3, 6, 0.25)
    module = nn.Linear(3, 2)
    module.load_state_dict(last.state)
    np.testing.assert_allclose(
        outcome.outputs["loss"], task.loss(module, task.batch("task", np.arange(6))).detach(), rtol=1e-6
    )
    assert not torch.equal(first.state["weight"], last.state["weight"])


def test_what_happens_after_the_last_keep_is_in_the_last_checkpoint(task, monkeypatch):
    train = Loop.train

    def swapped(self, subset, seed, keep):
        module = train(self, subset, seed, keep)
        module.weight.data += 1
        return module

    (plain,) = train_pack(task, [run((1, 3))], ["loss"], Queries())
    monkeypatch.setattr(Loop, "train", swapped)
    (outcome,) = train_pack(task, [run((1, 3))], ["loss"], Queries())
    for name, value in plain.checkpoints[-1].state.items():
        torch.testing.assert_close(outcome.checkpoints[-1].state[name], value + (name == "weight"))
    assert torch.equal(outcome.checkpoints[0].state["weight"], plain.checkpoints[0].state["weight"])


def test_a_training_that_keeps_nothing_has_its_end_as_checkpoint(task):
    task.told = ()
    (outcome,) = train_pack(task, [run((1,))], ["loss"], Queries())
    (only,) = outcome.checkpoints
    assert (only.epoch, only.step) == (1, 0)
    assert math.isnan(only.learning_rate)


def test_an_epoch_that_is_never_handed_over_fails_the_run(task):
    (outcome,) = train_pack(task, [run((0, 2))], ["loss"], Queries())
    assert "never called keep for epoch 0, which the design keeps" in outcome.failure.message


def test_a_module_of_other_parameters_or_none_fails_the_run(task, monkeypatch):
    view = OwnTraining(task)
    view.train(run())
    monkeypatch.setattr(Loop, "train", lambda *_: nn.Linear(3, 2, bias=False))
    with pytest.raises(TaskError, match="a module with other parameters than before: bias"):
        view.train(run())
    monkeypatch.setattr(Loop, "train", lambda *_: 3)
    (outcome,) = train_pack(task, [run()], ["loss"], Queries())
    assert outcome.failure.message == "train(subset, seed, keep) must return a torch.nn.Module, found int"


def test_a_measure_of_another_shape_fails_the_run(task):
    (outcome,) = train_pack(task, [run()], ["wide"], Queries())
    assert "measure 'wide' must return one number an example, of shape (b,); for 6 examples it returned (6, 2)" in str(
        outcome.failure
    )


def test_the_module_is_had_without_training_to_the_end(task):
    steps = []
    train = Loop.train

    def counted(self, subset, seed, keep):
        return train(self, subset, seed, lambda *told: (steps.append(told[1]), keep(*told)))

    Loop.train = counted
    try:
        module = OwnTraining(task).module()
    finally:
        Loop.train = train
    assert list(module.state_dict()) == ["weight", "bias"]
    assert steps == [3]
    task.module = lambda: nn.Linear(3, 2)
    assert steps == [3]
    assert isinstance(OwnTraining(task).module(), nn.Linear)


def test_outputs_and_loss_are_told_apart(task):
    view, module = OwnTraining(task), nn.Linear(3, 2)
    batch = task.batch("train", np.arange(4))
    outputs = view.forward(module, batch)
    assert torch.equal(outputs, module(batch["x"]))
    assert torch.equal(view.criterion(outputs, batch), task.loss(module, batch))
    assert torch.equal(view.features(module, batch), batch["x"])
    task.loss = lambda module, batch: module(batch["x"])[:, 0] + module(batch["x"])[:, 1]
    with pytest.raises(TaskError, match="calls the module 2 times"):
        view.forward(module, batch)


def test_levels_are_told_apart(task, mean_task, blobs):
    from workers import Recipe

    assert isinstance(gradient_task(task), OwnTraining)
    assert gradient_task(mean_task) is None
    differentiable = blobs(Recipe())
    assert gradient_task(differentiable) is differentiable


def broken(**changed):
    task = Loop()
    for name, value in changed.items():
        setattr(task, name, value)
    return task


class Named(Loop):
    measures = ("loss",)


class Silent(Loop):
    def train(self, subset, seed):
        return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Named(), "`measures` must map names to functions of .module, batch., found ..loss"),
        (Silent(), "`train` must be callable as train.subset, seed, keep."),
        (broken(n=0), "`n`, the number of training examples, must be an int > 0"),
        (broken(batch=lambda s, i: {"x": torch.zeros(2), "y": torch.zeros(3)}), "`batch.y` has 3 examples and `batch.x` has 2"),
        (broken(batch=lambda s, i: torch.zeros(5)), "made a batch of 5 examples for 2 indices"),
        (broken(module=lambda: 3), r"module\(\) must return a torch.nn.Module, found int"),
        (
            broken(module=lambda: nn.Linear(3, 2), loss=lambda m, b: m(b["x"]).mean()),
            "loss must return one number an example, of shape .b,.; for 2 examples it returned",
        ),
        (broken(module=lambda: nn.Linear(4, 2)), "fails on its first examples: RuntimeError"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_is_trained(task, said):
    with pytest.raises((TaskError, DataError), match=said) as caught:
        check_contract(task, "my.py:Mine")
    assert "\n" not in str(caught.value)


def test_examples_that_cannot_be_read_are_named(task):
    def batch(source, indices):
        raise OSError("no such shard")

    task.batch = batch
    with pytest.raises(
        DataError, match=r"batch\('task', indices\) fails for 3 examples \(0, 1, 2\): OSError: no such shard"
    ):
        OwnTraining(task).examples("task").read(torch.arange(3))
