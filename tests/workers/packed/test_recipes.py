"""What a recipe asks for beside a plain update, in every way of training: against a loop that a user would write in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from workers import Classification, Queries, Recipe, Run
from workers.packed.optimizers import clipped
from workers.packed.resident import Resident
from workers.packed.strategy import Strategy
from workers.packs import PackTrainer, train_pack
from workers.randomness.streams import Streams, build_module
from workers.training.alone import train

EPOCHS, BATCH = 3, 8
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": {"schedule": "linear"},
    "warm": {"schedule": "cosine", "warmup_steps": 4},
    "clip": {"clip_norm": 0.3},
    "accumulate": {"accumulate": 3},
    "no_decay": {"no_decay": ("*bias", "norm*")},
    "ema": {"ema": 0.8},
    "root": {"eps": 1e-4, "eps_in": "root"},
}
OPTIONS["all"] = {key: value for options in OPTIONS.values() for key, value in options.items()}
OPTIONS["all"] |= {"warmup_ratio": 0.2, "warmup_steps": 0}
OPTIONS["drop_last"] = {"drop_last": True, "accumulate": 2, "schedule": "linear"}  # it takes no subset below a batch
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.05},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.05},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.5},
}
PAIRS = [
    *(("adamw", options) for options in OPTIONS),
    *(("sgd", options) for options in ("plain", "clip", "no_decay", "all")),
    *(("adam", options) for options in ("no_decay", "root", "all")),
]


class Small(nn.Module):
    """Two layers with a normalization, a buffer that a forward pass changes, and a layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 9, bias=False)
        self.norm = nn.BatchNorm1d(9)
        self.fixed = nn.Linear(9, 9).requires_grad_(False)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.fixed(self.norm(self.stem(x)))))
        return out


def made(zoo: type[Classification], rule: str, options: str, **more: Any) -> Any:
    """Return a task of 33 examples with weights, whose module is Small."""

    class Task(zoo):  # type: ignore[valid-type,misc]
        def module(self) -> nn.Module:
            return Small()

    settings = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "precision": "float64",
        **RULES[rule],
        **OPTIONS[options],
        **more,
    }
    return Task(Recipe(**settings), "relu", weighted=True)


def rate_at(recipe: Recipe, step: int, total: int) -> float:
    """Return the learning rate of a step, by the formulas that Hugging Face's schedulers document."""
    warm = recipe.warmup_steps or int(np.ceil(recipe.warmup_ratio * total))
    if step < warm:
        return recipe.lr * step / warm
    done = (step - warm) / (total - warm)
    return (
        recipe.lr * {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + np.cos(np.pi * done))}[recipe.schedule]
    )


def rule_of(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimizer, in two groups: with decay, and the rest."""
    spared = recipe.no_decay and [name for name, _ in module.named_parameters() if "bias" in name or "norm" in name]
    decayed = [value for name, value in module.named_parameters() if name not in spared]
    others = [value for name, value in module.named_parameters() if name in spared]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, recipe.lr, recipe.betas, recipe.eps, decay)


def adam_with_eps_in_the_root(recipe: Recipe, optimizer: torch.optim.Optimizer, moments: dict[Any, Any]) -> None:
    """Take the step that torch's Adam would, but for sqrt(v + eps)."""
    beta1, beta2 = recipe.betas
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None:
                continue
            gradient, decay, rate = p.grad, group["weight_decay"], group["lr"]
            if recipe.optimizer == "adam":
                gradient = gradient + decay * p
            else:
                p.mul_(1 - rate * decay)
            m, v, k = moments.get(p, (0.0, 0.0, 0))
            m, v, k = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2, k + 1
            moments[p] = m, v, k
            p.sub_(rate * (m / (1 - beta1**k)) / torch.sqrt(v / (1 - beta2**k) + recipe.eps))


def by_hand(task: Any, run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train as a user's loop does; return the states after the last step, and after the first epoch."""
    recipe, streams = task.recipe, Streams(run.seed)
    module, _ = build_module(task.module, streams.initial, torch.float64)
    module.train()
    optimizer, moments = rule_of(recipe, module), {}
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)) if recipe.ema else None
    a_step = BATCH * recipe.accumulate
    places = len(run.subset) // BATCH * BATCH if recipe.drop_last else len(run.subset)
    total, step = EPOCHS * -(-places // a_step), 0
    kept: dict[str, Tensor] = {}
    for epoch in range(EPOCHS):
        order = torch.from_numpy(streams.order.orders(run.subset, 1)[0])[:places]
        for start in range(0, len(order), a_step):
            examples = order[start : start + a_step]
            optimizer.zero_grad()
            for batch in examples.split(BATCH):
                losses = nn.functional.cross_entropy(
                    module(task.train_inputs[batch]), task.train_targets[batch], reduction="none"
                )
                ((losses * task.train_weights[batch]).sum() / len(examples)).backward()
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(recipe, step, total)
            if recipe.eps_in == "root" and recipe.optimizer != "sgd":
                with torch.no_grad():
                    adam_with_eps_in_the_root(recipe, optimizer, moments)
            else:
                optimizer.step()
            if average is not None:
                average.update_parameters(module)
            step += 1
        if epoch == 0:
            kept = {name: value.clone() for name, value in module.state_dict().items()}
    return dict((module if average is None else average.module).state_dict()), kept


def subsets(count: int, n: int = 33) -> list[Run]:
    """Runs on subsets of unequal sizes: full and short last batches, full and short last steps."""
    sizes = (n - 1, 10, 16, n - 2, 26, 24, 7)
    rng = np.random.default_rng(3)
    return [
        Run(row, np.sort(rng.permutation(n)[: sizes[row % len(sizes)]]), 60 + row, (0, 1, EPOCHS))
        for row in range(count)
    ]


def largest(state: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert list(state) == list(other)
    return max(float((value - other[name]).abs().max()) for name, value in state.items())


def agree(task: Any, runs: Sequence[Run], **way: Any) -> None:
    """Assert that trained this way, models are those of the loop by hand, at the end and after the first epoch."""
    outcomes = train_pack(task, runs, ["loss"], Queries(), **way)
    for run, outcome in zip(runs, outcomes, strict=True):
        assert outcome.failure is None, outcome.failure.traceback
        last, first = by_hand(task, run)
        begun, early, end = (checkpoint.state for checkpoint in outcome.checkpoints)
        assert largest(end, last) < 1e-9
        assert largest(early, first) < 1e-9
        assert torch.equal(end["fixed.weight"], begun["fixed.weight"])
        assert not torch.equal(end["head.weight"], begun["head.weight"])
        module = Small().double().eval()
        module.load_state_dict(last)
        losses = nn.functional.cross_entropy(module(task.query_inputs), task.query_targets, reduction="none")
        np.testing.assert_allclose(outcome.outputs["loss"], losses.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rule", "options"), PAIRS)
def test_alone_is_the_loop_by_hand(zoo, rule, options):
    agree(made(zoo, rule, options), subsets(2), method="alone")


@pytest.mark.parametrize(("rule", "options"), PAIRS)
def test_lockstep_is_the_loop_by_hand(zoo, rule, options):
    agree(made(zoo, rule, options), subsets(5), method="stacked", width=5)


@pytest.mark.parametrize("width", [1, 3, 7])
def test_packs_of_any_size(zoo, width):
    agree(made(zoo, "adamw", "all"), subsets(7), method="stacked", width=width)


@pytest.mark.slow  # it compiles
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_compiled_is_the_loop_by_hand(zoo, rule):
    agree(made(zoo, rule, "all"), subsets(5), method="compiled", width=4)


def test_every_option_moves_the_model(zoo):
    """So that none of them passes above because nothing came of it."""
    (run,) = subsets(1)
    states = {name: train(made(zoo, "adamw", name, epochs=1), run)[0].state_dict() for name in OPTIONS}
    assert [name for name in OPTIONS if largest(states["plain"], states[name]) < 1e-6] == ["plain"]


@pytest.mark.parametrize("options", [name for name in OPTIONS if name not in ("plain", "linear", "warm")])
def test_the_resident_kernels_leave_what_they_cannot_compute(zoo, options):
    recipe = Recipe(**RULES["adam"], **OPTIONS[options])
    assert Resident.of(zoo(recipe.model_copy(update={"no_decay": recipe.no_decay and ("*bias",)}), "relu")) is None


@pytest.mark.parametrize("options", ["plain", "linear", "warm", "drop_last"])
def test_the_resident_kernels_take_every_schedule_and_drop_last(zoo, compare, options):
    chosen = OPTIONS[options] | {"accumulate": 1}
    recipe = Recipe(epochs=EPOCHS, batch_size=BATCH, precision="float64", **RULES["adamw"], **chosen)
    assert Resident.of(zoo(recipe, "relu")) is not None
    compare(zoo(recipe, "relu"), "resident", subsets(3), "margin")


def test_the_resident_kernels_leave_frozen_parameters_to_the_others(zoo):
    class Frozen(zoo):
        def module(self):
            return nn.Sequential(nn.Linear(5, 9).requires_grad_(False), nn.ReLU(), nn.Linear(9, 3))

    assert Resident.of(Frozen(Recipe(), "relu")) is None


def test_sgd_has_no_eps(zoo):
    assert Resident.of(zoo(Recipe(eps_in="root"), "relu")) is not None


def test_accumulation_is_one_batch_of_that_size(zoo):
    (run,) = subsets(1)
    recipe = Recipe(**RULES["sgd"], epochs=EPOCHS, batch_size=4, accumulate=3, precision="float64")
    whole = recipe.model_copy(update={"batch_size": 12, "accumulate": 1})
    states = [train(zoo(each, "relu", weighted=True), run)[0].state_dict() for each in (recipe, whole)]
    assert largest(*states) < 1e-12


def test_dropout_and_augmentation_are_drawn_for_every_batch(zoo, compare):
    recipe = Recipe(
        **RULES["adamw"], **OPTIONS["all"] | {"no_decay": ("*bias",)}, batch_size=BATCH, precision="float64"
    )
    task = zoo(recipe.model_copy(update={"epochs": EPOCHS, "crop": 1, "flip": True}), "convolution")
    compare(task, "stacked", subsets(5), "margin")


@pytest.mark.parametrize(
    ("rule", "method", "architecture"),
    [
        ("sgd", "stacked", "relu"),
        ("adamw", "stacked", "relu"),
        pytest.param("adamw", "compiled", "layer_norm", marks=pytest.mark.slow),
    ],
)
def test_the_same_bits_in_any_group(zoo, rule, method, architecture):
    recipe = Recipe(**RULES[rule], **OPTIONS["all"] | {"no_decay": ("*bias",)}, epochs=2, batch_size=BATCH)
    runs = subsets(6)
    trainer = PackTrainer(zoo(recipe, architecture), strategy=Strategy(method, 6, False, "as asked for"))
    whole = trainer.train(runs, ["loss"], Queries())
    for group in (runs[:1], runs[4:], runs[::-1]):
        for one in trainer.train(group, ["loss"], Queries()):
            np.testing.assert_array_equal(one.outputs["loss"], whole[one.row].outputs["loss"])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_gradient_is_clipped_to_the_same_bits_in_any_group(threads):
    generator = torch.Generator().manual_seed(2)
    shapes = {"large": (300, 257), "small": (7,), "single": ()}
    gradients = {name: torch.randn(5, *shape, generator=generator) for name, shape in shapes.items()}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = clipped(gradients, 1.0)
        for size in (1, 2, 3):
            part = clipped({name: value[2 : 2 + size] for name, value in gradients.items()}, 1.0)
            assert all(torch.equal(part[name], whole[name][2 : 2 + size]) for name in shapes)
    finally:
        torch.set_num_threads(before)
