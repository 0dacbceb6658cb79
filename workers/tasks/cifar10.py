"""CIFAR-10 by a ResNet-9 or a small CNN, with random crops and flips."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from workers.data import images
from workers.recipe import Recipe
from workers.tasks import arguments
from workers.tasks.arguments import RecipeArgument, checked, override
from workers.tasks.images import ImageTask, Network, choose
from workers.tasks.networks import cnn, resnet9

RECIPE = Recipe(
    lr=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    batch_size=128,
    epochs=24,
    schedule="one_cycle",
    crop=4,
    flip=True,
)
Model = Annotated[Literal["resnet9", "cnn"], Field(description="the network")]
Width = Annotated[PositiveInt, Field(description="channels of the first layer; 64 in the literature's ResNet-9")]
Norm = Annotated[
    Literal["batch", "group"],
    Field(description="the ResNet-9's normalization: the literature's is batch, group leaves examples independent"),
]


def network_of(model: str, width: int, norm: Literal["batch", "group"], classes: int) -> Network:
    """Return the network of these arguments."""
    if model == "resnet9":
        return Network(partial(resnet9, 3, width, classes, norm), f"ResNet-9 of width {width}")
    return Network(partial(cnn, 3, 32, width, classes), f"CNN of width {width}")


class Cifar10(ImageTask):
    """CIFAR-10; `width` is the number of channels of the network's first layer (64 in the literature's ResNet-9).

    `path` is an .npz with `x` (m, 32, 32, 3) uint8 and `y` (m,), an .npz of JPEG bytes (`train_jpeg`, `train_offset`,
    `y_train`, and the same for `test`: image i is jpeg[offset[i]:offset[i + 1]]), or a torchvision root folder. Where there
    is a test set, queries are its first t images; otherwise they follow the training examples. `split_seed` permutes first, as
    a copy may be sorted by class.
    """

    title = "CIFAR-10"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    @checked
    def __init__(
        self,
        path: arguments.ImagesPath = None,
        n: arguments.Count = 50_000,
        t: arguments.QueryCount = 10_000,
        split_seed: arguments.SplitSeed = 0,
        model: Model = "resnet9",
        width: Width = 64,
        norm: Norm = "group",
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
        download: arguments.Download = False,
        recipe: RecipeArgument = None,
    ):
        network = network_of(model, width, norm, classes=10)
        train, queries = choose(images.cifar10(path, download), n, t, split_seed)
        super().__init__(train, queries, network, override(RECIPE, recipe), flip_labels, flip_seed)
