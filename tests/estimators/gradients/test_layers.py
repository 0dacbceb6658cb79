"""Factors of layers against automatic differentiation, example by example, in float64."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from estimators.gradients import factors
from estimators.gradients import layers as layers_module
from estimators.gradients.factors import EmbeddingRows, Outer, contracted, inner_products
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from tests.estimators.modules import CASES, setting
from workers.errors import ConfigError


@pytest.mark.parametrize("name", CASES)
def test_factors_are_the_gradients_of_automatic_differentiation(name: str) -> None:
    task, model, train, queries = setting(name)
    measure = task.objective("margin")
    of_losses, of_measure = Layers.of(model, [(task.losses, train), (measure, queries)])
    assert [block.names for block in of_losses.blocks] == [block.names for block in of_measure.blocks]
    assert sorted(name for block in of_losses.blocks for name in block.names) == sorted(model.parameters)
    unknown = [name for block in of_losses.blocks if block.why for name in block.names]
    assert len(unknown) == CASES[name][2], unknown
    found, asked = of_losses.factors(train), of_measure.factors(queries)
    left, right = (gradients(model, one, two, 2**30) for one, two in ((task.losses, train), (measure, queries)))
    torch.testing.assert_close(of_losses.flat(found), left, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(of_measure.flat(asked), right, rtol=1e-10, atol=1e-12)
    products = sum(inner_products(a, b) for a, b in zip(found, asked, strict=True))
    torch.testing.assert_close(products, left @ right.T, rtol=1e-10, atol=1e-12)


def test_in_float32_they_agree_as_far_as_it_goes() -> None:
    task, model, train, _ = setting("text", torch.float32)
    (layers,) = Layers.of(model, [(task.losses, train)])
    assert not any(block.why for block in layers.blocks)
    torch.testing.assert_close(
        layers.flat(layers.factors(train)), gradients(model, task.losses, train, 2**30), rtol=1e-4, atol=1e-6
    )


def test_a_weight_that_is_also_used_in_another_way_is_found_out() -> None:
    task, model, train, _ = setting("used twice")
    (layers,) = Layers.of(model, [(task.losses, train)])
    reasons = {block.weight: block.why for block in layers.blocks if block.why}
    why = "its layers' gradients are not those of automatic differentiation"
    assert reasons == {"net.weight": why, "net.bias": why}
    torch.testing.assert_close(layers.flat(layers.factors(train)), gradients(model, task.losses, train, 2**30))


def test_what_only_one_objective_takes_from_a_layer_is_differentiated_in_general_for_both() -> None:
    task, model, train, queries = setting("mlp")

    def norm(module: torch.nn.Module, batch: Any) -> torch.Tensor:
        return module[1].weight.square().sum().expand(len(batch.targets))

    first, second = Layers.of(model, [(task.losses, train), (norm, queries)])
    assert [block.names for block in first.blocks] == [block.names for block in second.blocks]
    assert "1.weight" in {block.weight for block in second.blocks if not block.calls}
    torch.testing.assert_close(second.flat(second.factors(queries)), gradients(model, norm, queries, 2**30))


def test_only_the_parameters_in_question_are_in_blocks() -> None:
    task, _, train, _ = setting("cnn")
    whole = setting("cnn")[1]
    (layers,) = Layers.of(whole.restricted(["7.weight", "7.bias"]), [(task.losses, train)])
    assert [block.names for block in layers.blocks] == [("7.weight", "7.bias")]


def outer(rng: torch.Generator, count: int, positions: int) -> Outer:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    return Outer(draw(count, positions, 5), draw(count, positions, 3))


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.booleans())
def test_inner_products_are_those_of_formed_gradients(
    a: int, s: int, b: int, r: int, embedded: bool, few: bool
) -> None:
    rng = torch.Generator().manual_seed(7)
    left, right = outer(rng, a, s), outer(rng, b, r)
    if embedded:
        tokens = [torch.randint(0, 4, (len(one), one.inputs.shape[1]), generator=rng) for one in (left, right)]
        left, right = EmbeddingRows(tokens[0], left.outputs, 4), EmbeddingRows(tokens[1], right.outputs, 4)
        torch.testing.assert_close(left.as_outer().formed(), left.formed())
    wanted = left.formed().flatten(1) @ right.formed().flatten(1).T
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(factors, "PAIRS_AT_ONCE", 8 if few else 2**24)
        torch.testing.assert_close(inner_products(left, right), wanted)
    torch.testing.assert_close(contracted(left, right.formed()), wanted)
    torch.testing.assert_close(left.take(slice(0, 1)).formed(), left.formed()[:1])


@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_blocks_of_one_objective_hold_for_another(name: str, formed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, train, queries = setting(name)
    measure = task.objective("margin")
    (of_losses,) = Layers.of(model, [(task.losses, train)])
    if formed:
        monkeypatch.setattr(layers_module, "_tried", lambda *_: layers_module._Trial())
    found = Layers.within(of_losses.blocks, model, measure, queries)
    assert [(one.names, one.form, one.shape) for one in found.blocks] == [
        (one.names, one.form, one.shape) for one in of_losses.blocks
    ]
    assert formed != any(one.calls for one in found.blocks)
    wanted = gradients(model, measure, queries, 2**30)
    torch.testing.assert_close(found.flat(found.factors(queries)), wanted, rtol=1e-8, atol=1e-10)


def test_blocks_of_another_model_are_refused() -> None:
    task, model, train, _ = setting("mlp")
    (layers,) = Layers.of(model, [(task.losses, train)])
    with pytest.raises(ConfigError, match=r"are not those of the model"):
        Layers.within(layers.blocks[1:], model, task.losses, train)
