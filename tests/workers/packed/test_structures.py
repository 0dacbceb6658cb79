"""Models of any structure, in float64: alone as a plain loop of PyTorch's, and in packs as alone, to 1e-9 after the whole recipe.

Inputs in dictionaries and tuples, data sets and arrays on disk; dropout in attention and by functions; tied, frozen and adapted
weights; several outputs; batch normalization.
"""

import math
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from workers import Classification, Queries, Recipe, Run
from workers.packs import train_pack
from workers.randomness.functional_dropout import KeyedCalls
from workers.randomness.streams import Streams
from workers.training import alone

N, T, CLASSES, LENGTH, VOCABULARY = 33, 7, 3, 5, 11
Words = namedtuple("Words", "tokens mask")


class Attends(nn.Module):
    """A transformer layer whose attention has dropout inside, on tokens with a mask of what is there."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens, mask):
        x = self.layer(self.token(tokens), src_key_padding_mask=~mask)
        return self.head((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))


class ByFunction(Attends):
    """Dropout by a function, twice, and torch's attention with dropout."""

    def forward(self, tokens, mask):
        x = F.dropout(self.token(tokens), 0.2, self.training)
        x = F.scaled_dot_product_attention(x, x, x, mask.unsqueeze(1), dropout_p=0.3 if self.training else 0.0)
        return self.head(F.dropout(x.mean(1), 0.1, self.training))


class Tied(nn.Module):
    """The embedding is the last layer's weight too."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, CLASSES)
        self.mix = nn.Linear(CLASSES, CLASSES)
        self.out = nn.Linear(CLASSES, VOCABULARY, bias=False)
        self.out.weight = self.token.weight

    def forward(self, tokens, mask):
        x = self.out(torch.tanh(self.mix(self.token(tokens))))
        return (x * mask.unsqueeze(-1)).sum(1)[:, :CLASSES]


class Frozen(Attends):
    """The embedding is not trained."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.token.requires_grad_(False)

    def forward(self, tokens, mask):
        return self.head(self.layer(self.token(tokens)).mean(1))


class Adapted(nn.Module):
    """A frozen layer with an adapter of rank 2 beside it, as LoRA has."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, 8).requires_grad_(False)
        self.base = nn.Linear(8, CLASSES).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, CLASSES, bias=False)

    def forward(self, tokens, mask):
        x = self.token(tokens).mean(1)
        return self.base(x) + self.up(self.down(x))


class Normalized(nn.Module):
    """Batch normalization, whose statistics a forward pass changes."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens, mask):
        return self.head(torch.relu(self.norm(self.token(tokens).mean(1))))


class Several(Attends):
    """Two outputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, tokens, mask):
        x = self.layer(self.token(tokens)).mean(1)
        return {"logits": self.head(x), "size": x.square().mean(1)}


MODULES = {one.__name__: one for one in (Attends, ByFunction, Tied, Frozen, Adapted, Normalized, Several)}


class Texts(Classification):
    """Words of unequal length, three classes."""

    def __init__(self, module, structure=dict, **recipe):
        generator = torch.Generator().manual_seed(5)
        options = {"optimizer": "adamw", "lr": 0.02, "schedule": "cosine"} | recipe
        self.recipe = Recipe(epochs=3, batch_size=8, precision="float64", **options)
        self.kind = MODULES[module]
        targets = torch.randint(CLASSES, (N + T,), generator=generator)
        tokens = torch.randint(VOCABULARY, (N + T, LENGTH), generator=generator)
        mask = torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (N + T, 1), generator=generator)
        words = Words(tokens, mask)
        whole = words._asdict() if structure is dict else words
        for split, where in (("train", slice(N)), ("query", slice(N, None))):
            part = {k: v[where] for k, v in whole.items()} if structure is dict else Words(*(v[where] for v in whole))
            setattr(self, f"{split}_inputs", part)
            setattr(self, f"{split}_targets", targets[where])

    def module(self):
        return self.kind()

    def loss(self, outputs, targets):
        if isinstance(outputs, dict):
            return super().loss(outputs["logits"], targets) + 0.1 * outputs["size"]
        return super().loss(outputs, targets)

    def measurements(self):
        known = super().measurements()
        return {name: partial(self._measured, measure) for name, measure in known.items()}

    @staticmethod
    def _measured(measure, outputs, targets):
        return measure(outputs["logits"] if isinstance(outputs, dict) else outputs, targets)


def runs(epochs=(0, 1, 3)):
    everything = np.arange(N)
    half = np.sort(np.random.default_rng(0).permutation(N)[: N // 2])
    subsets = [np.delete(everything, 4), everything[:10], half, np.delete(everything, 20)]
    return [Run(row, subset, 40 + row, tuple(epochs)) for row, subset in enumerate(subsets)]


def plain_loop(task, run):
    """Train as a user would, by torch.optim; the order of examples and the keys of masks are taken from the run's streams."""
    streams = Streams(run.seed)
    torch.manual_seed(streams.initial)
    module = task.module().double().train()
    optimizer = torch.optim.AdamW(module.parameters(), task.recipe.lr, weight_decay=task.recipe.weight_decay)
    steps = task.recipe.epochs * math.ceil(len(run.subset) / 8)
    keys, step = torch.from_numpy(streams.functional_keys(steps)), 0
    for _ in range(task.recipe.epochs):
        order = torch.from_numpy(streams.order.orders(run.subset, 1)[0])
        for batch in order.split(8):
            optimizer.param_groups[0]["lr"] = task.recipe.lr * (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.zero_grad()
            with KeyedCalls(keys[step]):
                outputs = module(**{name: value[batch] for name, value in task.train_inputs.items()})
            task.loss(outputs, task.train_targets[batch]).mean().backward()
            optimizer.step()
            step += 1
    return module.state_dict()


def differences(states, others):
    for state, other in zip(states, others, strict=True):
        assert list(state) == list(other)
        yield from (float((state[name].double() - other[name].double()).abs().max()) for name in state)


# Layers of attention have dropout layers of their own, whose keys a plain loop has no place for.
@pytest.mark.parametrize("module", [name for name in MODULES if name != "Attends"])
def test_alone_is_a_plain_loop(module):
    task = Texts(module)
    got = [alone.train(task, run)[0].state_dict() for run in runs()]
    assert max(differences(got, [plain_loop(task, run) for run in runs()])) < 1e-9


@pytest.mark.parametrize("structure", [dict, tuple])
@pytest.mark.parametrize("module", MODULES)
def test_in_a_pack_is_alone(module, structure, largest_difference):
    task = Texts(module, structure, weight_decay=0.1)
    packed = train_pack(task, runs(), ["margin"], Queries(), method="stacked", width=4)
    single = train_pack(task, runs(), ["margin"], Queries(), method="alone")
    assert largest_difference(packed, single) < 1e-9
    for one, other in zip(packed, single, strict=True):
        np.testing.assert_allclose(one.outputs["margin"], other.outputs["margin"], rtol=1e-6, atol=1e-6)
    pair = train_pack(task, runs()[1:3], ["margin"], Queries(), method="stacked", width=2)
    assert largest_difference(pair, single[1:3]) < 1e-9


def test_what_is_frozen_stays_and_what_is_tied_stays_tied():
    frozen = train_pack(Texts("Frozen"), runs(), ["margin"], Queries(), method="stacked", width=4)
    tied = train_pack(Texts("Tied"), runs(), ["margin"], Queries(), method="stacked", width=4)
    for outcome in frozen:
        first, *_, last = outcome.checkpoints
        assert torch.equal(first.state["token.weight"], last.state["token.weight"])
        assert not torch.equal(first.state["head.weight"], last.state["head.weight"])
    for outcome in tied:
        state = outcome.checkpoints[-1].state
        assert torch.equal(state["token.weight"], state["out.weight"])


class Items(Dataset):
    """The same words, one at a time."""

    def __init__(self, task, split):
        self.inputs, self.targets = getattr(task, f"{split}_inputs"), getattr(task, f"{split}_targets")

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {name: value[index] for name, value in self.inputs.items()}, self.targets[index]


def from_data_sets(task):
    task.train_data, task.query_data = Items(task, "train"), Items(task, "query")
    del task.train_inputs, task.train_targets, task.query_inputs, task.query_targets


def from_disk(task, folder):
    for name, value in task.train_inputs.items():
        np.save(folder / f"{name}.npy", value.numpy())
    task.train_inputs = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in task.train_inputs}


@pytest.mark.parametrize("method", ["stacked", "alone"])
@pytest.mark.parametrize("place", ["data sets", "disk"])
def test_where_examples_are_read_from_changes_no_bit(method, place, tmp_path, largest_difference):
    task = Texts("Attends")
    held = train_pack(task, runs(), ["margin"], Queries(), method=method, width=4)
    from_disk(task, tmp_path) if place == "disk" else from_data_sets(task)
    read = train_pack(task, runs(), ["margin"], Queries(), method=method, width=4)
    assert largest_difference(held, read) == 0
    for one, other in zip(held, read, strict=True):
        assert np.array_equal(one.outputs["margin"], other.outputs["margin"])


def test_training_queries_are_measured_too(largest_difference):
    task = Texts("ByFunction")
    queries = Queries("train", (4, 20, 3))
    packed = train_pack(task, runs(), ["loss"], queries, method="stacked", width=4)
    single = train_pack(task, runs(), ["loss"], queries, method="alone")
    for one, other in zip(packed, single, strict=True):
        assert one.outputs["loss"].shape == (3,)
        np.testing.assert_allclose(one.outputs["loss"], other.outputs["loss"], rtol=1e-6)


class Draws(Attends):
    """Noise that no key governs, from where functions are not watched: after the first step, or inside a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, tokens, mask):
        return self.head(self.layer(self.token(tokens))[0].mean(1))


def test_noise_that_no_seed_governs_fails_the_run_with_its_reason(monkeypatch):
    monkeypatch.setitem(MODULES, "Draws", Draws)
    (outcome,) = train_pack(Texts("Draws"), runs()[:1], ["margin"], Queries(), method="alone")
    assert outcome.failure is not None
    assert "which a run's seed does not govern" in outcome.failure.message


def test_nothing_of_torchs_global_state_is_used_or_left_changed():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = train_pack(Texts("ByFunction"), runs(), ["margin"], Queries(), method="alone")
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(4)
    again = train_pack(Texts("ByFunction"), runs(), ["margin"], Queries(), method="alone")
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.outputs["margin"], other.outputs["margin"])
