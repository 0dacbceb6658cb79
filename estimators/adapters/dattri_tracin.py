"""TracIn as dattri computes it, on the sweep's reference models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from estimators.adapters.dattri_task import attribution_task
from estimators.adapters.peer import PeerEffects, PeerEstimator, version_of, without_bars
from estimators.gradient_based.trajectory import TrajectoryEffects, TrajectoryEstimator
from estimators.reference_estimator import Block, Material
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from estimators.gradients.functional_model import Model
    from workers.task import GradientTask


class DattriTracin(PeerEstimator, TrajectoryEstimator):
    """tau[i, q] = - sum over checkpoints c of lr_c grad f_q(theta_c)^T grad loss_i(theta_c), by dattri, averaged over models.

    Pruthi et al. 2020, equation 1, as https://github.com/TRAIS-Lab/dattri has it, without the projection to 512 dimensions that
    it does unless it is told otherwise; so it is what `tracin` computes. Units: its own. Cost: gradients of all examples and of
    all queries are formed at each checkpoint, those of the queries once for every batch of examples.

    >>> from estimators.adapters.dattri_tracin import DattriTracin
    >>> DattriTracin(epochs=(10, 20)).epochs
    (10, 20)
    """

    name: ClassVar[str] = "dattri_tracin"
    library: ClassVar[str] = "dattri"
    imported_as: ClassVar[str] = "dattri"

    def weights_of(self, checkpoints: Sequence[Checkpoint], task: GradientTask) -> list[float]:
        """Return the learning rates of the last steps before the checkpoints."""
        return self.last_rates(checkpoints)

    def effects(self, material: Material) -> DattriTracinEffects:
        """Sum over checkpoints. Raises ConfigError for a task that dattri cannot take, and for a missing checkpoint."""
        self.taken(material.task)
        return DattriTracinEffects(self, material)


class DattriTracinEffects(TrajectoryEffects, PeerEffects):
    """What dattri's TracIn says, checkpoint by checkpoint."""

    def __init__(self, options: DattriTracin, material: Material):
        super().__init__(options, material)
        self._options = options

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what one checkpoint brings to all queries, but for its weight."""
        import torch
        from dattri.algorithm.tracin import TracInAttributor
        from torch.utils.data import DataLoader

        task = attribution_task(self, self._options.module_of(self.task, checkpoint))
        attributor = TracInAttributor(task, torch.ones(1), normalized_grad=False, device=str(model.device))
        attributor.projector_kwargs = None
        batch = self._options.batch_of(model.p)
        data = (self.data(examples) for examples in (self.material.train, self.material.queries))
        with without_bars():
            scores = attributor.attribute(*(DataLoader(one, batch_size=batch) for one in data))
        yield slice(0, len(self.material.queries)), -scores.double()

    def details(self) -> Mapping[str, Any]:
        """Return the library, with its version, and the epochs of the checkpoints used."""
        return {"library": version_of("dattri"), **super().details()}
