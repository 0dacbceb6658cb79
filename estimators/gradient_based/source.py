"""SOURCE: the derivative through a whole training, in closed form over stretches of constant curvature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from estimators.evidence import Reference
from estimators.gradient_based.trajectory import CheckpointsEstimator
from estimators.reference_estimator import Block, Material, ModelEffects
from workers.errors import ConfigError
from workers.runs import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.curvature.kronecker import KroneckerFactored
    from estimators.curvature.pseudo_gradients import ExactGradients, LossGradients, PseudoGradients
    from estimators.curvature.segment import Segment
    from estimators.evidence import Evidence
    from estimators.gradients.functional_model import Model
    from estimators.gradients.layers import Layers
    from estimators.gradients.sided_scale import SidedScale
    from workers.recipe import Recipe
    from workers.task import GradientTask

KNOWN = ("sgd", "adam", "adamw")
"""Optimizers whose steps have a closed form here."""


class Source(CheckpointsEstimator):
    """tau[i, q] = - (1/n) sum over segments l of <grad f_q, S_L ... S_(l+1) r_li>, averaged over models.

    Bae et al. 2024 (SOURCE), section 3: the training is cut into L segments, in each of which curvature, gradients and learning
    rate are taken as constant. With T_l the sum of the segment's learning rates (K steps of their mean), H_l its curvature and
    g_li the gradient of example i's loss, both means over the segment's checkpoints,

        S_l = exp(-T_l H_l),    r_li = (1 - exp(-T_l H_l)) H_l^-1 g_li:

    r is what the segment's own steps on example i have moved the parameters by at its end, S what becomes of a change in a
    later segment. Where curvature is large, r is an influence function's H^-1 g; where it is small it is T_l g, TracIn's. The
    query's gradient is that at the last checkpoint alone. With one segment and a long training tau is `ekfac` without damping.

    - H_l is EK-FAC in one eigenbasis a segment: that of K-FAC's two sides, averaged over the segment's checkpoints; the
      eigenvalues are the mean squares along it, averaged over them too. `curvature: kfac` leaves the eigenvalues as they are.
    - Weight decay is added to the eigenvalues: exactly where all parameters of a layer have it, else by its diagonal.
    - sgd with momentum, Nesterov's too, moves by 1 / (1 - momentum) times the rate (appendix D of the paper): T_l has it.
    - adam and adamw divide by the root of their second moment, P: S = exp(-T P H) and r = (1 - exp(-T P H)) H^-1 g (equation
      43). The paper takes H's diagonal in the exponential for them. Here P, the mean moment's of the segment's checkpoints, is a
      product of a number for a layer's row and one for its column (as Adafactor keeps it), so that P^1/2 H P^1/2 has
      EK-FAC's factors, and S and r are those of one matrix: r is T P g where curvature is small, and H^-1 g where it is large. A
      parameter whose second moment is 0 does not move. adamw's decay is not divided.

    Segments are equally many checkpoints each, in their order; each goes from the step after the one before it to its last
    checkpoint's. `checkpoints: 3 x 2` of a `full` design keeps three segments of equal length with two each.

    Units of the measure, as far as the approximation goes. Cost: that of `ekfac` for every checkpoint, and 2 p (in + out) t
    operations (adam: twice as many) for every segment and layer of in times out to hand the queries on. Refused: a task without
    a recipe, clipped gradients (a step then depends on all gradients in it), and an average of weights, which is not where the
    training was.

    >>> from estimators.gradient_based.source import Source
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two classes: even and odd examples; query 0 is even; checkpoints after epochs 30 and 60
    >>> made = Source(segments=2).attribute(evidence)
    >>> made.values.shape, made.models, made.details["segments"]
    ((24, 4), 2, ['epochs 30', 'epochs 60'])
    >>> even, odd = made.values[0::2, 0].sum(), made.values[1::2, 0].sum()
    >>> bool(even > 0 > odd)  # the query's margin gains from its own class, and loses from the other
    True
    """

    name: ClassVar[str] = "source"
    in_units: ClassVar[bool] = True

    segments: int = Field(
        3,
        ge=1,
        description="stretches of constant curvature that the training is cut into, equally many checkpoints each",
    )
    curvature: Literal["ekfac", "kfac"] = Field(
        "ekfac", description="eigenvalues: seen along the eigenvectors, or products of those of the two sides"
    )
    fisher: Literal["sampled", "exact", "empirical"] = Field(
        "sampled",
        description="gradients of the curvature: at targets drawn from the model, their expectation in closed form (a pass for "
        "each output), or at the true targets",
    )
    samples: int = Field(1, ge=1, description="targets drawn an example and checkpoint, for fisher: sampled")
    moments: Literal["kept", "expected"] = Field(
        "kept",
        description="adam, adamw: the second moment, as checkpoints keep it with optimizer_state: true, or that of batches at "
        "the checkpoint",
    )

    def check(self, evidence: Evidence) -> None:
        """Refuse a flat measure, and a training whose steps have no closed form here."""
        super().check(evidence)
        self.recipe_of(evidence.differentiable())

    def recipe_of(self, task: GradientTask) -> Recipe:
        """Return the recipe. Raises ConfigError where there is none, and for steps that this knows nothing of."""
        recipe = task.recipe
        if recipe is None:
            raise ConfigError("source follows the steps of training, and the task has no `recipe` that tells them")
        if recipe.optimizer not in KNOWN:
            raise ConfigError(f"source knows the optimizers {', '.join(KNOWN)}, the recipe's is {recipe.optimizer}")
        if recipe.clip_norm is not None:
            raise ConfigError(
                "source needs steps whose gradients are not clipped, the recipe has clip_norm "
                f"{recipe.clip_norm:g}: expected another estimator (tracin, gas)"
            )
        if recipe.ema is not None:
            raise ConfigError(
                "source needs the parameters that steps were taken from, the recipe averages them by ema "
                f"{recipe.ema:g}: expected another estimator (tracin with weights: segment)"
            )
        epochs = self.epochs or tuple(range(1, recipe.epochs + 1))
        if len(epochs) < self.segments:
            raise ConfigError(
                f"source: {self.segments} segments need as many checkpoints, there can be {len(epochs)}: expected fewer segments"
            )
        return recipe

    def segments_of(self, reference: Reference) -> tuple[tuple[Checkpoint, ...], ...]:
        """Return the checkpoints of every segment, in order. Raises ConfigError for ones that cannot be cut so."""
        found = self.checkpoints(reference)
        if found[0].epoch == 0:
            raise ConfigError("source: epoch 0 in `epochs` has no steps before it: expected later ones")
        return replace(reference, checkpoints=tuple(found)).segments(self.segments)

    def references(self, evidence: Evidence) -> tuple[Reference, ...]:
        """Return the reference models. Raises ConfigError for too few, and for checkpoints that cannot be cut into segments."""
        self.recipe_of(evidence.differentiable())
        found = super().references(evidence)
        for reference in found:
            self.segments_of(reference)
        return found

    def effects(self, material: Material) -> SourceEffects:
        """Walk through every training. Raises ConfigError for a flat measure, and as `check` does."""
        return SourceEffects(self, material)


@dataclass(frozen=True)
class _Point:
    """One checkpoint of a segment."""

    model: Model
    checkpoint: Checkpoint
    source: PseudoGradients | ExactGradients | LossGradients
    """The gradients of its curvature."""
    of_source: Layers
    of_losses: Layers


class SourceEffects(ModelEffects):
    """What the trainings bring, walked through backwards."""

    def __init__(self, options: Source, material: Material):
        super().__init__(material)
        self._options = options
        self._recipe = options.recipe_of(material.task)
        self._drawn = 0
        self._cut: list[str] = []
        self._times: list[float] = []
        self._without_factors: dict[str, str] = {}

    def of_model(self, model: Model, checkpoint: Checkpoint) -> Iterator[Block]:
        """Yield what a training brings of which only the end was seen: one segment."""
        yield from self._walked([[(model, checkpoint)]])

    def of_reference(self, reference: Reference) -> Iterator[Block]:
        """Yield what one training brings, a mean over the networks that stand for it."""
        groups, members = self._options.segments_of(reference), self.material.members
        self._cut = [f"epochs {', '.join(str(one.epoch) for one in group)}" for group in groups]
        for member in range(members):
            mask = self.material.mask(reference, member)
            for where, block in self._walked([[(self.model(one, mask), one) for one in group] for group in groups]):
                yield where, block / members

    def values(self, total: Tensor) -> Tensor:
        """Return the mean over the models of a 1/n-th."""
        return total / (len(self.material.train) * len(self.material.references))

    def details(self) -> Mapping[str, Any]:
        """Return the segments, the sum of learning rates of each, and which parameters have no factors, with the reason."""
        told: dict[str, Any] = {"segments": self._cut, "times": self._times}
        if self._recipe.optimizer != "sgd":
            told["moments"] = self._options.moments
        if self._without_factors:
            told["without_factors"] = [f"{name}: {why}" for name, why in self._without_factors.items()]
        return told

    def _walked(self, groups: Sequence[Sequence[tuple[Model, Checkpoint]]]) -> Iterator[Block]:
        """Yield - <grad f_q, S_L ... S_(l+1) r_li>, summed over the segments."""
        import torch

        from estimators.gradients.example_factors import ExampleFactors
        from estimators.gradients.per_example import rows_within, slices

        train, queries, quarter = self.material.train, self.material.queries, self._options.budget // 4
        points, of_measure = self._points(groups)
        segments = self._segments(points)
        share = quarter // sum(len(group) for group in points)
        rates = [
            [ExampleFactors(point.of_losses, train, share, segment.turned) for point in group]
            for group, segment in zip(points, segments, strict=True)
        ]
        model = of_measure.model
        size = min(rows_within(2 * quarter, 4 * model.p * model.dtype.itemsize), of_measure.rows(queries, quarter))
        for where in slices(len(queries), size):
            asked = of_measure.factors(queries[where])
            turned = [factor.formed() for factor in segments[-1].turned(asked)]
            plain = [factor.formed() for factor in asked] if segments[-1].scales is not None else []
            total = torch.zeros(len(train), where.stop - where.start, dtype=model.dtype, device=model.device)
            for place in reversed(range(len(segments))):
                matrices = segments[place].gathered(turned)
                for factors in rates[place]:
                    total -= factors.contracted(matrices) / len(rates[place])
                if not place:
                    break
                if plain:
                    plain = segments[place].carried(plain, turned)
                    turned = segments[place - 1].into(plain)
                else:
                    turned = segments[place].turned_on(turned, segments[place - 1])
            yield where, total

    def _points(self, groups: Sequence[Sequence[tuple[Model, Checkpoint]]]) -> tuple[list[list[_Point]], Layers]:
        """Return the checkpoints with their layers, and those of the measure at the last one: the same blocks for all."""
        from estimators.gradients.shared_layers import shared_layers

        task, train = self.material.task, self.material.train
        pairs = [pair for group in groups for pair in group]
        sources = [self._source(model) for model, _ in pairs]
        last = pairs[-1][0]
        layers = shared_layers(
            [
                (last, self.measure(last), self.material.queries),
                *((model, task.losses, train) for model, _ in pairs),
                *((model, one.objective, one.few()) for (model, _), one in zip(pairs, sources, strict=True)),
            ]
        )
        of_measure, of_losses, of_sources = layers[0], layers[1 : len(pairs) + 1], layers[len(pairs) + 1 :]
        self._without_factors |= {block.weight: block.why for block in of_measure.blocks if block.why}
        found = iter(
            _Point(*pair, source, of_source, losses)
            for pair, source, of_source, losses in zip(pairs, sources, of_sources, of_losses, strict=True)
        )
        return [[next(found) for _ in group] for group in groups], of_measure

    def _segments(self, points: Sequence[Sequence[_Point]]) -> list[Segment]:
        """Return the segments with their curvatures."""
        from estimators.curvature.segment import Segment

        recipe = self._recipe
        rates = recipe.learning_rates(self.material.task.n)
        gain = 1 / (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1.0
        ends = [group[-1].checkpoint.step for group in points]
        self._times = [float(rates[start:end].sum()) * gain for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        found = []
        for group, time in zip(points, self._times, strict=True):
            scales = None if recipe.optimizer == "sgd" else self._scales(group)
            found.append(Segment(self._curvature(group, scales), time, scales))
        return found

    def _curvature(self, group: Sequence[_Point], scales: Sequence[SidedScale] | None) -> KroneckerFactored:
        """Return the mean curvature of a segment's checkpoints, weight decay included."""
        from estimators.curvature.decay_in_basis import with_decay
        from estimators.curvature.joined_gradients import JoinedGradients
        from estimators.curvature.kronecker_fit import Fit

        own = [point.of_source for point in group]
        fit = Fit(own[-1], JoinedGradients([point.source for point in group], own, scales), self._options.budget // 2)
        curvature = fit.kfac()
        if self._options.curvature == "ekfac":
            curvature = fit.corrected(curvature)
        return with_decay(curvature, group[-1].model, self._recipe, scales)

    def _scales(self, group: Sequence[_Point]) -> list[SidedScale]:
        """Return the roots of adam's preconditioner, by the mean second moment of the checkpoints."""
        from estimators.gradients.optimizer_moments import moments_at, squared_divisors
        from estimators.gradients.sided_scale import SidedScale

        task, train = self.material.task, self.material.train
        given = (task.losses, train, self._recipe, self._options.moments, self._options.budget // 4)
        seconds = [moments_at(point.model, point.checkpoint, *given).second for point in group]
        divisors = squared_divisors(sum(seconds[1:], seconds[0]) / len(seconds), self._recipe)
        tree = group[-1].model.unflatten(divisors.unsqueeze(0))
        return [SidedScale.inverse_root(block.gathered(tree)[0]) for block in group[-1].of_losses.blocks]

    def _source(self, model: Model) -> PseudoGradients | ExactGradients | LossGradients:
        """Return the gradients whose second moment is the curvature; each model's targets are drawn anew."""
        from estimators.curvature.pseudo_gradients import fisher_gradients

        options, drawn = self._options, (self.material.seed, self._drawn)
        self._drawn += 1
        return fisher_gradients(options.fisher, model, self.material.task, self.material.train, drawn, options.samples)
