"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, no download. The embedded default."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from workers.data import datasets
from workers.recipe import Recipe
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, checked, override
from workers.tasks.images import ImageTask, Network, choose
from workers.tasks.networks import mlp

RECIPE = Recipe(lr=0.1, momentum=0.9, batch_size=64, epochs=20, schedule="cosine")


class Digits(ImageTask):
    """Digits, pixels scaled to [0, 1], by a linear model or an MLP with one hidden layer."""

    title = "digits"
    white = 16.0

    @checked
    def __init__(
        self,
        n: arguments.Count = 1000,
        t: arguments.QueryCount = 200,
        split_seed: arguments.SplitSeed = 0,
        model: Annotated[Literal["mlp", "logistic"], Field(description="the network")] = "mlp",
        hidden: Annotated[PositiveInt, Field(description="width of the MLP's hidden layer")] = 64,
        dropout: arguments.Dropout = 0.0,
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
        recipe: RecipeArgument = None,
    ):
        widths = [hidden] if model == "mlp" else []
        network = Network(
            partial(mlp, 64, widths, 10, dropout), f"MLP 64-{hidden}-10" if widths else "logistic regression"
        )
        train, queries = choose(datasets.digits(), n, t, split_seed)
        super().__init__(train, queries, network, override(RECIPE, recipe), flip_labels, flip_seed)
