"""GAS: TracIn with gradients of length 1, so that no example counts for its large loss alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.trajectory import TrajectoryEstimator, TrajectoryProducts
from estimators.reference_estimator import Material
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from workers.task import GradientTask


class Gas(TrajectoryEstimator):
    """tau[i, q] = - sum over checkpoints c of lr_c cos(grad f_q(theta_c), grad loss_i(theta_c)), averaged over models.

    Gradient aggregated similarity (Hammoudeh & Lowd 2022, "Identifying a training-set attack's target using renormalized
    influence estimation", section 4): TracInCP whose gradients are divided by their norms, which differ by orders of magnitude
    between examples that the model knows and those that it does not. lr_c is the learning rate of the last step before the
    checkpoint; the batch size, one for all, is left out. The measure's gradient takes the place of the test loss's.

    - `norm: model`: the gradient of all parameters has length 1 (GAS).
    - `norm: layer`: that of every layer, a module's own parameters, has (GAS-L): layers with small gradients count, too.

    `parameters: [head.*]` looks at the last layer only. An example without a gradient gets 0. Unit-free. A schedule that ends
    at 0 gives the last checkpoint almost no weight. Costs TracIn's passes: a gradient of every example and checkpoint, and at
    most n t p operations.

    >>> from estimators.gradient_based.gas import Gas
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even
    >>> made = Gas().attribute(evidence)
    >>> made.values.shape, made.details["epochs"]
    ((24, 4), [30, 60])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > odd)  # the query's margin gains more from its own class
    True
    """

    name: ClassVar[str] = "gas"

    norm: Literal["model", "layer"] = Field(
        "model", description="what has length 1: the whole gradient (GAS), or that of each layer (GAS-L)"
    )

    def weights_of(self, checkpoints: Sequence[Checkpoint], task: GradientTask) -> list[float]:
        """Return lr_c. Raises ConfigError where the task told none."""
        return self.last_rates(checkpoints)

    def effects(self, material: Material) -> TrajectoryProducts:
        """Sum over checkpoints, average over models. Raises ConfigError for a missing checkpoint or a flat measure."""
        from estimators.gradients.directions import directions, directions_by_layer

        return TrajectoryProducts(self, material, directions_by_layer if self.norm == "layer" else directions)
