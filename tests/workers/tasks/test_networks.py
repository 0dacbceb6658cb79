"""Every network runs under torch.func as packed training and per-example gradients run it."""

from functools import partial

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from workers.randomness.streams import build_module
from workers.tasks.networks import CausalTransformer, TextClassifier, cnn, mlp, resnet9
from workers.training.batchable_attention import batchable_attention


class Masked(TextClassifier):
    """Zeros stand where there is no token."""

    def forward(self, tokens):
        return super().forward(tokens, tokens > 0)


IMAGES = partial(torch.randn, 4, 3, 8, 8)
NETWORKS = {
    "linear": (partial(mlp, 192, [], 5), IMAGES),
    "mlp": (partial(mlp, 192, [7, 6], 5, 0.2), IMAGES),
    "cnn": (partial(cnn, 3, 8, 4, 5, 0.2), IMAGES),
    "resnet9": (partial(resnet9, 3, 8, 5), IMAGES),
    "transformer": (partial(CausalTransformer, 5, 6, 8, 2, 2, 0.2), partial(torch.randint, 5, (4, 6))),
    "text": (partial(Masked, 5, 6, 5, 8, 2, 2), partial(torch.randint, 1, 5, (4, 6))),
}


@pytest.fixture(params=NETWORKS)
def setting(request):
    factory, draw = NETWORKS[request.param]
    modules = [build_module(factory, seed, torch.float64)[0] for seed in range(3)]
    torch.manual_seed(0)
    x = draw()
    with batchable_attention():
        yield modules, (x.double() if x.is_floating_point() else x)


def loss(module, state, x):
    outputs = functional_call(module, state, (x,))
    return F.cross_entropy(outputs.flatten(0, -2), torch.arange(outputs.shape[:-1].numel()) % 5)


def test_a_stack_of_models_is_a_loop(setting):
    modules, x = setting
    parameters, buffers = stack_module_state(modules)
    together = vmap(grad(lambda p, b: loss(modules[0], {**p, **b}, x)))(parameters, buffers)
    for index, module in enumerate(modules):
        module.zero_grad()
        loss(module, dict(module.named_parameters()), x).backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad, rtol=1e-8, atol=1e-10)


def test_per_example_gradients_are_a_loop(setting):
    module, x = setting[0][0].eval(), setting[1]
    state = {name: value.detach() for name, value in module.named_parameters()}
    together = vmap(lambda one: grad(lambda p: loss(module, p, one[None]))(state))(x)
    for index in range(len(x)):
        alone = grad(lambda p, one=x[index : index + 1]: loss(module, p, one))(state)
        for name in state:
            torch.testing.assert_close(together[name][index], alone[name], rtol=1e-8, atol=1e-10)


def test_an_example_does_not_depend_on_its_batch(setting):
    module, x = setting[0][0].eval(), setting[1]
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-9, atol=1e-11)


def test_the_transformer_sees_no_future():
    module = CausalTransformer(5, 6, 8, 2, 2)
    x = torch.randint(5, (1, 6), generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[0, 3] = (x[0, 3] + 1) % 5
    same, differs = module(x)[0] - module(changed)[0], (module(x) - module(changed))[0, 3].abs().max()
    assert same[:3].abs().max() == 0
    assert differs > 0


def test_the_resnet_has_nine_layers_and_the_widths_of_the_literature():
    shapes = [tuple(p.shape) for p in resnet9(3, 64, 10).parameters() if p.ndim > 1]
    assert [shape[0] for shape in shapes] == [64, 128, 128, 128, 256, 512, 512, 512, 10]
    assert len(shapes) == 9
