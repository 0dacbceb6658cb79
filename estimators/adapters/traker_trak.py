"""TRAK as traker computes it, on the sweep's reference models."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from estimators.adapters.peer import PeerEffects, PeerEstimator, version_of, without_bars
from estimators.evidence import Evidence
from estimators.reference_estimator import Block, Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.gradients.functional_model import Model
    from workers.task import DifferentiableTask, GradientTask


class TrakerTrak(PeerEstimator):
    """tau (n, t) = mean over models of (Q) x mean over models of (Phi (Phi^T Phi)^-1 phi_q), by traker.

    Park et al. 2023, as https://github.com/MadryLab/trak has it, in float32: the gradients of margins, projected, one Newton
    step, and the weights Q = 1 - p of the examples. It divides each model's inverse by the mean size of its entries, so that
    absolute scale is lost and an ensemble is weighted by it; our `trak` does not. Only the order of a query's values counts.

    The measure is `margin`, and the task a classification, which are what traker has the weights for. Cost: n + t gradients in p
    dimensions, and their projection.

    >>> from estimators.adapters.traker_trak import TrakerTrak
    >>> TrakerTrak(project_dim=512).project_dim
    512
    """

    name: ClassVar[str] = "traker_trak"
    library: ClassVar[str] = "traker"
    imported_as: ClassVar[str] = "trak"

    project_dim: int = Field(2048, ge=2, description="dimensions of the random projection")
    projection: Literal["rademacher", "normal"] = Field("rademacher", description="entries of the random projection")
    damping: float = Field(
        0.0,
        ge=0,
        description="traker's lambda_reg: added to the Gram matrix of features, which it divides by the root of p",
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a measure other than the margin."""
        if evidence.measure != "margin":
            raise ConfigError(f"{self.name}: traker attributes margins, found measure {evidence.measure!r}")
        super().check(evidence)

    def taken(self, task: GradientTask) -> DifferentiableTask:
        """Refuse a task that is no classification."""
        from workers.task import Classification

        taken = super().taken(task)
        if not isinstance(taken, Classification):
            raise ConfigError(
                f"{self.name}: traker attributes margins of a Classification, found {type(taken).__name__}"
            )
        p = sum(value.numel() for value in self.module_of(taken).parameters())
        if not self.damping and self.project_dim > min(taken.n, p):
            raise ConfigError(
                f"{self.name}: the Gram matrix of {taken.n:,} examples with {p:,} parameters is singular in "
                f"{self.project_dim:,} dimensions: expected project_dim of at most {min(taken.n, p):,}, or damping above 0"
            )
        return taken

    def effects(self, material: Material) -> TrakerEffects:
        """Project the gradients of each model. Raises ConfigError for a task or a measure that traker cannot take."""
        if material.measure != "margin":
            raise ConfigError(f"{self.name}: traker attributes margins, found measure {material.measure!r}")
        self.taken(material.task)
        return TrakerEffects(self, material)


class TrakerEffects(PeerEffects):
    """What traker keeps of each model, in a folder of its own for one attribution."""

    def __init__(self, options: TrakerTrak, material: Material):
        super().__init__(material)
        self._options = options
        self._folder = tempfile.TemporaryDirectory()
        self._models = 0
        self._theirs: Any = None

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Give traker one more model; what they bring together, `values` asks it."""
        from torch.utils.data import DataLoader

        batch, state = self._options.batch_of(model.p), checkpoint.state
        with without_bars():
            if self._theirs is None:
                self._theirs = self._made(model, checkpoint)
            self._theirs.load_checkpoint(state, model_id=self._models)
            for inputs, targets in DataLoader(self.data(self.material.train), batch_size=batch):
                self._theirs.featurize((inputs, targets), num_samples=len(inputs))
            self._finalize()
            self._theirs.start_scoring_checkpoint("sweep", state, self._models, num_targets=len(self.material.queries))
            for inputs, targets in DataLoader(self.data(self.material.queries), batch_size=batch):
                self._theirs.score((inputs, targets), num_samples=len(inputs))
        self._models += 1
        yield from ()

    def _finalize(self) -> None:
        """Invert the Gram matrix of the features. Raises ConfigError where it is singular."""
        try:
            self._theirs.finalize_features(model_ids=[self._models])
        except RuntimeError as error:  # torch's LinAlgError is one
            if "singular" not in str(error):
                raise
            raise ConfigError(
                f"{self._options.name}: the Gram matrix of the features is singular: expected a smaller project_dim than "
                f"{self._options.project_dim:,}, or damping above {self._options.damping:g}"
            ) from error

    def _made(self, model: Model, checkpoint: Checkpoint) -> Any:
        import torch
        from trak import TRAKer
        from trak.projectors import BasicProjector, ProjectionType

        options, device = self._options, str(model.device)
        projector = BasicProjector(
            grad_dim=model.p,
            proj_dim=options.project_dim,
            seed=self.material.seed,
            proj_type=ProjectionType(options.projection),
            device=device,
            dtype=torch.float32,
            # traker frees the matrix before it scores, and draws it again only where it is made of several blocks.
            block_size=min(100, -(-options.project_dim // 2)),
        )
        return TRAKer(
            options.module_of(self.task, checkpoint),
            "image_classification",
            train_set_size=len(self.material.train),
            save_dir=self._folder.name,
            device=device,
            use_half_precision=False,
            proj_dim=options.project_dim,
            projector=projector,
            lambda_reg=options.damping,
            logging_level=logging.ERROR,
        )

    def values(self, total: Tensor) -> Tensor:
        """Return traker's scores of all models seen so far."""
        import torch

        with without_bars():
            scores = self._theirs.finalize_scores("sweep", model_ids=range(self._models))
        return torch.as_tensor(scores).double()

    def details(self) -> Mapping[str, Any]:
        """Return the library, with its version."""
        return {"library": version_of("traker"), "dimension": self._options.project_dim}
