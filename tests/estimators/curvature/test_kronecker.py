"""K-FAC and EK-FAC against the same matrices formed in full from gradients by automatic differentiation, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.curvature.gauss_newton import GaussNewton
from estimators.curvature.kronecker import KroneckerFactored
from estimators.curvature.kronecker_fit import Fit
from estimators.curvature.kronecker_products import Preconditioned
from estimators.curvature.pseudo_gradients import ExactGradients, LossGradients, PseudoGradients
from estimators.gradients.functional_model import Examples, Model
from estimators.gradients.layers import Layers
from estimators.gradients.per_example import gradients
from tests.estimators.modules import N, setting
from workers.data.examples import Batch
from workers.errors import ConfigError
from workers.runs import Checkpoint
from workers.tasks.characters import Characters

BUDGET = 2**24
NAMES = ["mlp", "cnn", "normalized", "text", "tied", "odd"]


def places(curvature: KroneckerFactored, at: int) -> Tensor:
    """Return where the entries of a block (out, in) are among all parameters, row by row."""
    numbers = curvature.model.unflatten(torch.arange(curvature.p, dtype=torch.float64).unsqueeze(0))
    return curvature.blocks[at].gathered(numbers).flatten().long()


def formed(curvature: KroneckerFactored) -> Tensor:
    return curvature.product(torch.eye(curvature.p, dtype=torch.float64))


class Made:
    """A curvature of one of the modules, and the gradients (n, p) that it is the second moment of."""

    def __init__(self, name: str, empirical: bool = False, budget: int = BUDGET):
        self.task, self.model, self.train, self.queries = setting(name)
        self.source = (
            LossGradients(self.task, self.train)
            if empirical
            else PseudoGradients(self.model, self.task, self.train, seed=3)
        )
        measure = self.task.objective("margin")
        self.of_losses, self.of_measure, self.layers = Layers.of(
            self.model,
            [(self.task.losses, self.train), (measure, self.queries), (self.source.objective, self.source.few())],
        )
        self.measure = measure
        self.fit = Fit(self.layers, self.source, budget)
        self.rows = torch.cat([self.layers.flat(factors) for factors in self.source.batches(self.layers, N)])

    def second_moment(self) -> Tensor:
        return self.rows.T @ self.rows / N


@pytest.mark.parametrize("fit", ["kfac", "shampoo"])
@pytest.mark.parametrize("name", NAMES)
def test_corrected_eigenvalues_are_the_second_moments_along_the_eigenvectors(name: str, fit: str) -> None:
    made = Made(name)
    curvature = made.fit.corrected(getattr(made.fit, fit)())
    true, dense = made.second_moment(), formed(curvature)
    for at, (block, basis) in enumerate(zip(curvature.blocks, curvature.bases, strict=True)):
        where = places(curvature, at)
        out = torch.eye(block.shape[0], dtype=torch.float64) if basis.out is None else basis.out
        inner = torch.eye(block.shape[1], dtype=torch.float64) if basis.inner is None else basis.inner
        vectors = torch.kron(out.contiguous(), inner.contiguous())
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(block.size, dtype=torch.float64))
        along = (vectors.T @ true[where][:, where] @ vectors).diagonal()
        torch.testing.assert_close(basis.eigenvalues.flatten(), along, rtol=1e-8, atol=1e-14)
        torch.testing.assert_close(dense[where][:, where], vectors @ along.diag() @ vectors.T, rtol=1e-8, atol=1e-12)
        if block.form == "formed":
            torch.testing.assert_close(dense[where][:, where], true[where][:, where], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("empirical", [False, True])
def test_the_sides_of_a_layer_are_means_of_what_enters_and_leaves_it(empirical: bool) -> None:
    made = Made("mlp", empirical)
    curvature = made.fit.kfac()
    if empirical:
        per_example = gradients(made.model, made.task.losses, made.train, 2**30)
        per_example = per_example / made.train.weights.sqrt().unsqueeze(1)  # w_i g_i g_i^T, not w_i^2
        torch.testing.assert_close(made.rows, per_example)
    module = made.model.module
    entered: list[Tensor] = []
    handle = module[3].register_forward_hook(lambda _module, args, _output: entered.append(args[0]))
    module(made.train.batch().inputs)
    handle.remove()
    ones = torch.ones(N, 1, dtype=torch.float64)
    x = torch.cat([entered[0], ones], 1)
    (at,) = [at for at, block in enumerate(curvature.blocks) if block.weight == "3.weight"]
    g = made.rows[:, places(curvature, at)].reshape(N, *curvature.blocks[at].shape)[:, :, -1]  # the bias's gradient
    wanted = torch.kron(g.T @ g / N, x.T @ x / N)
    where = places(curvature, at)
    torch.testing.assert_close(formed(curvature)[where][:, where], wanted)


@pytest.mark.parametrize("name", ["cnn", "text", "tied"])
def test_positions_are_taken_as_independent_in_expansion(name: str) -> None:
    """K-FAC of shared weights: A over examples and positions, S a mean over examples of sums over positions."""
    made = Made(name)
    curvature = made.fit.kfac()
    (factors,) = list(made.source.batches(made.layers, N))
    for at, factor in enumerate(factors):
        if curvature.blocks[at].form != "outer":
            continue
        x, g = factor.inputs.flatten(0, 1), factor.outputs.flatten(0, 1)
        where = places(curvature, at)
        wanted = torch.kron(g.T @ g / N, x.T @ x / len(x))
        torch.testing.assert_close(formed(curvature)[where][:, where], wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_products_inverses_roots_and_diagonals_are_those_of_the_formed_matrix(name: str) -> None:
    made = Made(name)
    curvature = made.fit.corrected(made.fit.kfac())
    dense, eye = formed(curvature), torch.eye(curvature.p, dtype=torch.float64)
    torch.testing.assert_close(dense, dense.T)
    torch.testing.assert_close(curvature.inverse(0.1)(eye), torch.linalg.inv(dense + 0.1 * eye), rtol=1e-8, atol=1e-8)
    root = curvature.root()(eye)
    torch.testing.assert_close(root @ root, dense, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(curvature.diagonal(), dense.diagonal())
    assert curvature.trace() == pytest.approx(float(dense.trace()))


@pytest.mark.parametrize("budget", [BUDGET, 2**13])
@pytest.mark.parametrize("name", NAMES)
def test_preconditioned_products_are_those_of_the_formed_inverse(name: str, budget: int) -> None:
    made = Made(name, budget=budget)
    curvature = made.fit.corrected(made.fit.kfac())
    solved = Preconditioned(curvature, [0.05] * len(curvature.bases), made.of_losses, made.of_measure, budget)
    found = torch.empty(N, len(made.queries), dtype=torch.float64)
    for where, block in solved.products(made.train, made.queries):
        found[:, where] = block
    left = gradients(made.model, made.task.losses, made.train, 2**30)
    right = gradients(made.model, made.measure, made.queries, 2**30)
    inverse = torch.linalg.inv(formed(curvature) + 0.05 * torch.eye(curvature.p, dtype=torch.float64))
    torch.testing.assert_close(found, left @ inverse @ right.T, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "tied"])
def test_pseudo_gradients_have_the_gauss_newton_matrix_for_their_second_moment(name: str) -> None:
    task, model, train, _ = setting(name)
    true = GaussNewton(model, task, train, BUDGET).dense()
    total, draws = torch.zeros_like(true), 400
    layers = None
    for stream in range(draws):
        source = PseudoGradients(model, task, train, seed=1, stream=stream)
        layers = layers or Layers.of(model, [(source.objective, source.few())])[0]
        rows = torch.cat([layers.flat(factors) for factors in source.batches(layers, N)])
        total += rows.T @ rows / N / draws
    assert float((total - true).norm() / true.norm()) < 0.1


@pytest.mark.parametrize("rows", [2, N])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["mlp", "tied", "normalized"])
def test_exact_gradients_have_the_gauss_newton_matrix_for_their_second_moment(
    name: str, weighted: bool, rows: int
) -> None:
    task, model, train, _ = setting(name)
    train = replace(train, weights=torch.linspace(0, 2, N, dtype=torch.float64) if weighted else None)
    true = GaussNewton(model, task, train, BUDGET).dense()
    source = ExactGradients(model, task, train)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    found = torch.cat([layers.flat(factors) for factors in source.batches(layers, rows)])
    assert len(found) == source.count == N * (5 if name == "tied" else 3)
    torch.testing.assert_close(found.T @ found / source.count, true, rtol=1e-8, atol=1e-12)


def test_exact_eigenvalues_are_those_of_the_gauss_newton_matrix_along_the_eigenvectors() -> None:
    task, model, train, _ = setting("mlp")
    true = GaussNewton(model, task, train, BUDGET).dense()
    source = ExactGradients(model, task, train)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    fit = Fit(layers, source, BUDGET)
    curvature = fit.corrected(fit.kfac())
    for at, basis in enumerate(curvature.bases):
        where = places(curvature, at)
        vectors = torch.kron(basis.out.contiguous(), basis.inner.contiguous())
        along = (vectors.T @ true[where][:, where] @ vectors).diagonal()
        torch.testing.assert_close(basis.eigenvalues.flatten(), along, rtol=1e-8, atol=1e-14)


def test_outputs_that_are_too_many_for_their_hessian_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, train, _ = setting("mlp")
    monkeypatch.setattr("estimators.curvature.pseudo_gradients.HESSIAN_UP_TO", 2)
    with pytest.raises(ConfigError, match=r"the module has 3 outputs an example, too many .* use fisher: empirical"):
        ExactGradients(model, task, train).few()


def test_what_is_drawn_depends_on_seed_and_stream_and_not_on_the_batches() -> None:
    task, model, train, _ = setting("mlp")

    def drawn(rows: int, **key: int) -> Tensor:
        source = PseudoGradients(model, task, train, **{"seed": 1, **key})
        (layers,) = Layers.of(model, [(source.objective, source.few())])
        return torch.cat([layers.flat(factors) for factors in source.batches(layers, rows)])

    torch.testing.assert_close(drawn(7), drawn(2))
    assert not torch.equal(drawn(7), drawn(7, seed=2))
    assert not torch.equal(drawn(7), drawn(7, stream=1))


def test_corrected_is_the_nearest_matrix_with_these_eigenvectors() -> None:
    made = Made("mlp")
    true = made.second_moment()

    def off(curvature: KroneckerFactored) -> float:
        dense, total = formed(curvature), 0.0
        for at in range(len(curvature.blocks)):
            where = places(curvature, at)
            total += float((dense[where][:, where] - true[where][:, where]).square().sum())
        return total

    plain = made.fit.kfac()
    assert off(made.fit.corrected(plain)) < off(plain)


def test_few_bytes_change_nothing() -> None:
    curvatures = [Made("cnn", budget=budget).fit for budget in (BUDGET, 2**12)]
    first, second = (formed(fit.corrected(fit.kfac())) for fit in curvatures)
    torch.testing.assert_close(first, second)


def test_where_a_task_draws_no_targets_the_root_of_the_hessian_in_the_outputs_is_drawn(toy) -> None:
    weights = torch.linspace(0.5, 2.0, 24, dtype=torch.float64)
    task = toy("regression", hidden=3, weights=weights)
    model = Model(task, Checkpoint(1, 1, 0.1, task.module().double().state_dict()), torch.float64)
    train = Examples.training(task, torch.float64)
    source = PseudoGradients(model, task, train, seed=1)
    (layers,) = Layers.of(model, [(source.objective, source.few())])
    rows = torch.cat([layers.flat(factors) for factors in source.batches(layers, 5)])
    # With one output the sign is all that is drawn, and squares away.
    true = GaussNewton(model, task, train, BUDGET).dense()
    torch.testing.assert_close(rows.T @ rows / 24, true)


def test_a_language_model_draws_every_token_by_its_weight_in_the_loss(tmp_path) -> None:
    (tmp_path / "text.txt").write_text("abcdefgh" * 40)
    task = Characters(tmp_path / "text.txt", n=3, t=1, length=3, width=4, heads=1, layers=1, dropout=0.0)
    outputs = torch.randn(3, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(None, torch.zeros(3, 3, dtype=torch.long))
    rng, draws = np.random.default_rng(0), 20000
    drawn = torch.stack([task.sampled_output_gradients(outputs, batch, rng)[0] for _ in range(draws)])
    p = outputs[0].softmax(-1)
    hessian = torch.block_diag(*((one.diag() - torch.outer(one, one)) / 3 for one in p))
    assert float((drawn.T @ drawn / draws - hessian).norm() / hessian.norm()) < 0.05
    assert float(drawn.mean(0).abs().max()) < 0.02


def test_more_samples_are_one_mean_over_all_draws() -> None:
    task, model, train, _ = setting("mlp")
    one, three = (PseudoGradients(model, task, train, seed=3, samples=samples) for samples in (1, 3))
    (layers,) = Layers.of(model, [(one.objective, one.few())])
    rows = [torch.cat([layers.flat(factors) for factors in each.batches(layers, N)]) for each in (one, three)]
    torch.testing.assert_close(rows[1][:N], rows[0])
    assert len(rows[1]) == three.count == 3 * N
    assert not torch.equal(rows[1][:N], rows[1][N : 2 * N])
    curvature = Fit(layers, three, BUDGET)
    corrected = curvature.corrected(curvature.kfac())
    assert corrected.trace() == pytest.approx(float(rows[1].square().sum()) / (3 * N))


def test_an_embedding_s_sides_are_the_frequencies_of_its_tokens_and_what_leaves_it() -> None:
    made = Made("text")
    curvature = made.fit.kfac()
    (at,) = [at for at, block in enumerate(curvature.blocks) if block.weight == "token.weight"]
    (factors,) = list(made.source.batches(made.layers, N))
    factor = factors[at]
    frequencies = torch.bincount(factor.tokens.flatten(), minlength=9).double() / factor.tokens.numel()
    g = factor.outputs.flatten(0, 1)
    where = places(curvature, at)
    wanted = torch.kron(frequencies.diag(), g.T @ g / N)
    torch.testing.assert_close(formed(curvature)[where][:, where], wanted, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_shampoo_s_eigenvectors_are_those_of_the_means_of_both_products_of_a_gradient(name: str) -> None:
    made = Made(name)
    curvature = made.fit.shampoo()
    (factors,) = list(made.source.batches(made.layers, N))
    for factor, basis in zip(factors, curvature.bases, strict=True):
        g = factor.formed()
        for vectors, mean in ((basis.out, (g @ g.mT).mean(0)), (basis.inner, (g.mT @ g).mean(0))):
            inside = vectors.T @ mean @ vectors
            torch.testing.assert_close(inside, inside.diagonal().diag(), rtol=1e-8, atol=1e-10 * float(mean.norm()))
