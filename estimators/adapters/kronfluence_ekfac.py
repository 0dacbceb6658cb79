"""EK-FAC as kronfluence computes it, on the sweep's reference models."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from estimators.adapters.peer import PeerEffects, PeerEstimator, version_of, without_bars
from estimators.reference_estimator import Block, Material
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from estimators.gradients.functional_model import Model
    from workers.task import DifferentiableTask, GradientTask


class KronfluenceEkfac(PeerEstimator):
    """tau[i, q] = - (1/n) grad f_q^T (F + damping)^-1 grad loss_i with F by kronfluence, averaged over models.

    Grosse et al. 2023, as https://github.com/pomonam/kronfluence has it. `strategy: identity` leaves F out, and is `grad_dot`
    but for its scale. Targets are drawn from the model as our `ekfac` draws them; `fisher: empirical` takes the true ones. The
    damping is by default a tenth of each layer's mean eigenvalue. It works on the layers that kronfluence tracks, linear maps and
    convolutions; a module with other parameters is refused, since their part would be left out silently.

    Units of the measure, as far as the approximation goes; with `identity` none. Cost: three passes over the examples, and the
    inner products.

    >>> from estimators.adapters.kronfluence_ekfac import KronfluenceEkfac
    >>> KronfluenceEkfac(fisher="empirical").strategy
    'ekfac'
    """

    name: ClassVar[str] = "kronfluence_ekfac"
    library: ClassVar[str] = "kronfluence"
    imported_as: ClassVar[str] = "kronfluence"

    strategy: Literal["ekfac", "kfac", "diagonal", "identity"] = Field(
        "ekfac", description="what stands for the curvature"
    )
    fisher: Literal["sampled", "empirical"] = Field(
        "sampled", description="targets drawn from the model, or the true ones"
    )
    damping: float | None = Field(
        None, ge=0, description="added to the eigenvalues; null: a tenth of their mean, layer by layer"
    )

    @property
    def claims_units(self) -> bool:
        """Where a curvature is inverted."""
        return self.strategy != "identity"

    def taken(self, task: GradientTask) -> DifferentiableTask:
        """Refuse layers that kronfluence does not track, and targets that the task does not draw."""
        from torch import nn

        taken = super().taken(task)
        for name, layer in self.module_of(taken).named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d) and next(layer.parameters(recurse=False), None) is not None:
                raise ConfigError(
                    f"{self.name}: kronfluence tracks linear maps and convolutions, found parameters of "
                    f"{name or 'the module'} ({type(layer).__name__})"
                )
        if self.fisher == "sampled" and self.strategy != "identity" and not _draws(self, taken):
            raise ConfigError(
                f"{self.name}: the task draws no targets (sampled_output_gradients), expected fisher: empirical"
            )
        return taken

    def effects(self, material: Material) -> KronfluenceEffects:
        """Compute what each model brings. Raises ConfigError for a task that kronfluence cannot take."""
        self.taken(material.task)
        return KronfluenceEffects(self, material)


def _draws(options: KronfluenceEkfac, task: DifferentiableTask) -> bool:
    """Say whether a task draws targets from its model."""
    import torch

    batch = task.examples("train").to(options.dtype(task)).read(torch.arange(1))
    with torch.no_grad():
        outputs = task.forward(options.module_of(task), batch)
    return task.sampled_output_gradients(outputs, batch, np.random.default_rng(0)) is not None


class KronfluenceEffects(PeerEffects):
    """What kronfluence's pairwise scores say, model by model."""

    def __init__(self, options: KronfluenceEkfac, material: Material):
        super().__init__(material)
        self._options = options

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what one model brings to all queries, but for 1/n."""
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments, ScoreArguments
        from torch import nn

        options, batch = self._options, self._options.batch_of(model.p)
        task = self._as_theirs(checkpoint)
        # A module around it: one that is a single layer could not be wrapped in place.
        module: nn.Module = prepare_model(nn.Sequential(options.module_of(self.task, checkpoint)), task)
        with tempfile.TemporaryDirectory() as folder, without_bars():
            analyzer = Analyzer(
                analysis_name="sweep",
                model=module,
                task=task,
                cpu=model.device.type == "cpu",
                output_dir=folder,
                disable_tqdm=True,
            )
            analyzer.fit_all_factors(
                factors_name="factors",
                dataset=self.data(self.material.train),
                per_device_batch_size=batch,
                factor_args=FactorArguments(
                    strategy=options.strategy, use_empirical_fisher=options.fisher == "empirical"
                ),
            )
            analyzer.compute_pairwise_scores(
                scores_name="scores",
                factors_name="factors",
                query_dataset=self.data(self.material.queries),
                train_dataset=self.data(self.material.train),
                per_device_query_batch_size=batch,
                per_device_train_batch_size=batch,
                score_args=ScoreArguments(damping_factor=options.damping),
            )
            scores = analyzer.load_pairwise_scores("scores")["all_modules"]
        yield slice(0, len(self.material.queries)), -scores.T.double() / len(self.material.train)

    def _as_theirs(self, checkpoint: Checkpoint) -> Any:
        """Return the task as kronfluence has one: sums of losses and of the measure."""
        from kronfluence.task import Task

        from workers.data.examples import Batch

        ours, key = self, (zlib.crc32(b"estimators.kronfluence_ekfac"), checkpoint.epoch)
        rng = np.random.default_rng(np.random.SeedSequence(self.material.seed, spawn_key=key))

        class Theirs(Task):  # type: ignore[misc, unused-ignore]
            def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Any:
                inputs, targets = batch
                outputs = model(inputs)
                if not sample:
                    return ours.losses(outputs, targets).sum()
                drawn = ours.task.sampled_output_gradients(outputs.detach(), Batch(inputs, targets), rng)
                return (outputs * drawn).sum()  # its gradient is the loss's at a drawn target

            def compute_measurement(self, batch: Any, model: nn.Module) -> Any:
                inputs, targets = batch
                return ours.measured(model(inputs), targets).sum()

        return Theirs()

    def details(self) -> Mapping[str, Any]:
        """Return the library, with its version."""
        return {"library": version_of("kronfluence"), "strategy": self._options.strategy}
