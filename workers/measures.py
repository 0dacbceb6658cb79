"""What is recorded of a model on a query: one number for each (model output, target) pair.

Every function takes `outputs` (b, c) and `targets` (b,) for classification, or `outputs` (b,) or (b, 1) and `targets`
(b,) for regression, and returns (b,). All but `correct` are differentiable in `outputs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from workers.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Measure = Callable[["Tensor", "Tensor"], "Tensor"]


def _split(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logit of the target class, and all logits with that one at -inf."""
    at = targets.unsqueeze(-1)
    return outputs.gather(-1, at).squeeze(-1), outputs.scatter(-1, at, -math.inf)


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """log(p / (1 - p)) of the target class, as z_y - logsumexp(z without y) (TRAK, Park et al. 2023, section 3.1)."""
    own, others = _split(outputs, targets)
    return own - others.logsumexp(-1)


def hard_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logit of the target minus the largest other logit (Datamodels, Ilyas et al. 2022, section 2)."""
    own, others = _split(outputs, targets)
    return own - others.amax(-1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """-log p of the target class, in nats."""
    from torch.nn import functional as F

    return F.cross_entropy(outputs, targets, reduction="none")


def probability(outputs: Tensor, targets: Tensor) -> Tensor:
    """Probability of the target class, in [0, 1]."""
    return outputs.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1).exp()


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest logit is the target's, else 0."""
    return (outputs.argmax(-1) == targets).to(outputs.dtype)


def prediction(outputs: Tensor, targets: Tensor) -> Tensor:
    """The predicted value itself (regression)."""
    return outputs.reshape(targets.shape)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(prediction - target)**2 (regression)."""
    return (outputs.reshape(targets.shape) - targets) ** 2


CLASSIFICATION: dict[str, Measure] = {
    "margin": margin,
    "hard_margin": hard_margin,
    "loss": cross_entropy,
    "probability": probability,
    "correct": correct,
}
REGRESSION: dict[str, Measure] = {"squared_error": squared_error, "prediction": prediction, "loss": squared_error}


HIGHER_IS_BETTER = frozenset({"margin", "hard_margin", "probability", "correct"})
LOWER_IS_BETTER = frozenset({"loss", "squared_error"})


def direction(measure: str, better: Literal["higher", "lower"] | None = None) -> Literal[1, -1]:
    """Return 1 if higher values of the measure are better, else -1; `better` decides for one that is not known.

    Raises ConfigError for an unknown measure without it, and where the two disagree.
    """
    known = "higher" if measure in HIGHER_IS_BETTER else "lower" if measure in LOWER_IS_BETTER else None
    if known and better and known != better:
        raise ConfigError(f"better: {known} values of {measure!r} are better, found {better!r}")
    if known is None and better is None:
        raise ConfigError(
            f"better: whether higher values of {measure!r} are good is not known; set it to higher or lower"
        )
    return 1 if (known or better) == "higher" else -1
