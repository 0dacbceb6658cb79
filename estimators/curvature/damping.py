"""What a recipe adds to a curvature's diagonal: its L2 term, and the damping that the training itself suggests."""

from __future__ import annotations

from workers.errors import ConfigError
from workers.recipe import Recipe

MEAN_FRACTION = 0.1
"""A damping by the mean eigenvalue is this fraction of it (Grosse et al. 2023)."""


def unrolled_damping(recipe: Recipe, n: int) -> float:
    """Return 1 / (sum over the steps of training of lr_k / (1 - momentum)), for a training on n examples.

    Bae et al. 2024, section 3 (SOURCE): gradient descent that runs for a "time" T = sum of lr_k / (1 - momentum) along a
    direction of curvature s leaves an effect (1 - exp(-T s)) / s of an example's weight, where damped influence has
    1 / (s + damping). Both reach 1/s where T s is large; for flat directions one is T and the other 1 / damping, so that
    damping = 1 / T makes them equal there, too. Adam's preconditioning is left out: its steps are taken as sgd's. Raises
    ConfigError for a training whose rates are all 0.

    >>> from estimators.curvature.damping import unrolled_damping
    >>> from workers.recipe import Recipe
    >>> round(unrolled_damping(Recipe(lr=0.1, momentum=0.9, batch_size=10, epochs=2), n=50), 6)  # ten steps of rate .1 / (1 - .9)
    0.1
    """
    gain = 1 / (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1.0
    time = float(recipe.learning_rates(n).sum()) * gain
    if time <= 0:
        raise ConfigError(
            "the damping that training suggests is 1 over the sum of its learning rates, and that is 0: "
            "expected a damping of your own"
        )
    return 1 / time


def l2_curvature(recipe: Recipe | None, remedy: str = "use weight_decay: false") -> float:
    """Return d, so that d I is the Hessian of the recipe's L2 term (weight_decay / 2) |theta|^2.

    0 for adamw: its decay is decoupled from the loss, so no term of an objective; and where no recipe is known. Raises
    ConfigError, which names the remedy, where `no_decay` leaves parameters out of the term: its Hessian is then no multiple of I.
    """
    if recipe is None or recipe.optimizer == "adamw" or not recipe.weight_decay:
        return 0.0
    if recipe.no_decay:
        raise ConfigError(
            "the recipe's weight decay can be added to a curvature only where all parameters have it, found no_decay "
            f"{', '.join(recipe.no_decay)}: {remedy}"
        )
    return recipe.weight_decay
