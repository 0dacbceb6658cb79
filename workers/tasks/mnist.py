"""MNIST, in the setting of the attribution literature: 5,000 training examples, 500 queries."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from workers.data import images
from workers.recipe import Recipe
from workers.tasks import arguments
from workers.tasks.arguments import Fraction, RecipeArgument, checked, override
from workers.tasks.images import ImageTask, Network, choose
from workers.tasks.networks import cnn, mlp

Model = Literal["mlp", "logistic", "cnn"]

RECIPES: dict[Model, Recipe] = {
    "mlp": Recipe(lr=0.01, momentum=0.9, batch_size=64, epochs=50),
    "logistic": Recipe(lr=0.01, batch_size=32, epochs=20),
    "cnn": Recipe(lr=0.05, momentum=0.9, batch_size=64, epochs=10, schedule="cosine"),
}
"""The first two are those of dattri's MNIST benchmark (Deng et al. 2024), for published figures to compare with."""


class Mnist(ImageTask):
    """MNIST by an MLP 784-128-64-10, a linear model or a small CNN.

    `path` is an .npz with `x` (m, 28, 28) uint8, `y` (m,) and perhaps `x_test` and `y_test`, or a torchvision root folder.
    Where there is a test set, queries are its first t images; otherwise they follow the training examples. `split_seed`
    permutes first.
    """

    title = "MNIST"
    mean = (0.1307,)
    std = (0.3081,)

    @checked
    def __init__(
        self,
        path: arguments.ImagesPath = None,
        n: arguments.Count = 5000,
        t: arguments.QueryCount = 500,
        split_seed: arguments.SplitSeed = None,
        model: Annotated[Model, Field(description="the network")] = "mlp",
        hidden: Annotated[
            list[PositiveInt] | None, Field(description="widths of the MLP's hidden layers; null is [128, 64]")
        ] = None,
        width: Annotated[PositiveInt, Field(description="channels of the CNN's first layer")] = 16,
        dropout: Annotated[Fraction | None, Field(description="dropout rate; null is 0.1 for the MLP, else 0")] = None,
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
        download: arguments.Download = False,
        recipe: RecipeArgument = None,
    ):
        network = _network(model, [128, 64] if hidden is None else hidden, width, dropout)
        train, queries = choose(images.mnist(path, download), n, t, split_seed)
        super().__init__(train, queries, network, override(RECIPES[model], recipe), flip_labels, flip_seed)


def _network(model: Model, hidden: list[int], width: int, dropout: float | None) -> Network:
    """Return the network; the MLP's dropout is 0.1 unless given, the others' 0."""
    if model == "logistic":
        return Network(partial(mlp, 784, [], 10), "logistic regression")
    if model == "cnn":
        return Network(partial(cnn, 1, 28, width, 10, dropout or 0.0), f"CNN of width {width}")
    drop = 0.1 if dropout is None else dropout
    return Network(partial(mlp, 784, hidden, 10, drop), f"MLP {'-'.join(map(str, [784, *hidden, 10]))}, dropout {drop}")
