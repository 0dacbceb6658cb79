"""Small models of four structures, and their curvatures by plain autograd, one scalar at a time, in float64."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from estimators.gradients.functional_model import Examples, Model
from workers import Classification, Recipe
from workers.runs import Checkpoint
from workers.tasks.networks import TextClassifier

N, CLASSES = 7, 3


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))


class Cnn(nn.Sequential):
    """A batch normalization whose statistics are not those of the batch."""

    def __init__(self):
        norm = nn.BatchNorm2d(3)
        super().__init__(nn.Conv2d(1, 3, 3), norm, nn.Softplus(), nn.Flatten(), nn.Linear(12, CLASSES))
        norm.running_mean.copy_(torch.randn(3))
        norm.running_var.copy_(0.5 + torch.rand(3))


class Tied(nn.Module):
    """A hidden layer that is used twice, and an embedding that is the last layer's weight too."""

    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(CLASSES, 4)
        self.hidden = nn.Linear(4, 4)
        self.out = nn.Linear(4, CLASSES, bias=False)
        self.out.weight = self.token.weight

    def forward(self, tokens):
        x = self.token(tokens).mean(1)
        return self.out(torch.tanh(self.hidden(torch.tanh(self.hidden(x)))))


def texts(generator):
    length = torch.randint(1, 5, (N, 1), generator=generator)
    return {"tokens": torch.randint(6, (N, 4), generator=generator), "mask": torch.arange(4) < length}


STRUCTURES = {
    "mlp": (Mlp, lambda g: torch.randn(N, 4, generator=g, dtype=torch.float64)),
    "cnn": (Cnn, lambda g: torch.randn(N, 1, 4, 4, generator=g, dtype=torch.float64)),
    "text": (lambda: TextClassifier(6, 4, CLASSES, 4, 2, 1, dropout=0.2), texts),
    "tied": (Tied, lambda g: torch.randint(CLASSES, (N, 3), generator=g)),
}


class Small(Classification):
    def __init__(self, make, inputs):
        generator = torch.Generator().manual_seed(5)
        self.recipe = Recipe(precision="float64")
        self.make = make
        self.train_inputs = self.query_inputs = inputs(generator)
        self.train_targets = self.query_targets = torch.randint(CLASSES, (N,), generator=generator)
        self.train_weights = torch.linspace(0.25, 2, N, dtype=torch.float64)

    def module(self):
        return self.make()


@dataclass
class Case:
    task: Small
    model: Model
    module: nn.Module
    """The same model, to be differentiated by hand."""
    train: Examples
    found: dict[str, Tensor] = field(default_factory=dict)

    def parameters(self):
        return [self.module.get_parameter(name) for name in self.model.parameters]

    def row(self, value, **options):
        parts = torch.autograd.grad(value, self.parameters(), allow_unused=True, **options)
        pairs = zip(parts, self.parameters(), strict=True)
        return torch.cat([(torch.zeros_like(q) if p is None else p).reshape(-1) for p, q in pairs])

    def one(self, i):
        """Return the outputs (c,) and the loss of example i."""
        batch = self.train[i : i + 1].batch()
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            outputs = self.task.forward(self.module, batch)
        return outputs[0], self.task.criterion(outputs, batch)[0]

    def jacobian(self, i):
        return torch.stack([self.row(z, retain_graph=True) for z in self.one(i)[0]]).detach()

    def curvature(self, kind):
        """Return the matrix (p, p) in float64 by its definition."""
        if kind not in self.found:
            self.found[kind] = sum(float(w) * self._of(kind, i) for i, w in enumerate(self.train.weights)) / N
        return self.found[kind]

    def _of(self, kind, i):
        outputs, loss = self.one(i)
        if kind == "empirical_fisher":
            g = self.row(loss)
            return torch.outer(g, g)
        if kind == "hessian":
            gradient = self.row(loss, create_graph=True)
            return torch.stack([self.row(g, retain_graph=True) for g in gradient]).detach()
        jacobian, p = self.jacobian(i), outputs.detach().softmax(0)
        return jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian


@pytest.fixture(scope="session", params=STRUCTURES)
def case(request):
    torch.manual_seed(0)
    task = Small(*STRUCTURES[request.param])
    module = task.module().double()
    with torch.no_grad():  # embeddings of text begin too small to tell anything
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = Model(task, Checkpoint(1, 1, 0.1, module.state_dict()), torch.float64)
    return Case(task, model, module.eval(), Examples.training(task, torch.float64))


@pytest.fixture
def relative():
    """relative(found, expected): the norm of the difference over that of what was expected."""
    return lambda found, expected: float((found - expected).norm() / expected.norm())
