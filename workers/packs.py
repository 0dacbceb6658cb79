"""Train packs: the runs that one worker does together. What the scheduler calls, and all it needs to know of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workers.errors import DivergedError, TaskError, near
from workers.own_training import OwnTraining
from workers.packed.calibration import strategy_of
from workers.packed.memory import is_out_of_memory
from workers.packed.resident import Begun, Resident
from workers.packed.stacked import Stacked
from workers.packed.strategy import Method, Strategy
from workers.runs import Checkpoint, Failure, Outcome, OutOfMemory, Queries, Run
from workers.task import DifferentiableTask, Task, trains_itself
from workers.task_hooks import Measured, measure_train_of
from workers.training import alone
from workers.training.present_norm import check_apart

Outputs = Mapping[str, NDArray[np.float32]]
Trained = tuple[Outputs, tuple[Checkpoint, ...]]


class PackTrainer:
    """Trains packs of one task on one device. What it prepares for the first pack it keeps for those that follow.

    Whoever trains pack after pack holds one; the task must not change meanwhile. It is for one thread.
    """

    def __init__(self, task: Task | DifferentiableTask, device: str = "cpu", strategy: Strategy | None = None):
        """Without a strategy, packs of a differentiable task are trained as calibration found fastest on this machine."""
        self.task, self.device = task, device
        self._strategy = strategy
        self._engine: Resident | Stacked | None = None
        self._own: OwnTraining | None = None
        self._apart = False

    def train(self, runs: Sequence[Run], measures: Sequence[str], queries: Queries) -> list[Outcome]:
        """Train every run and measure it; return one outcome a run, in order. Raises OutOfMemory as `train_pack` does."""
        task, device = self.task, self.device
        if not isinstance(task, DifferentiableTask) and trains_itself(task):
            own = self._own = self._own or OwnTraining(task)
            return [_attempt(run, lambda run: _train_own(own, run, measures, queries)) for run in runs]
        if not isinstance(task, DifferentiableTask):
            return [_attempt(run, lambda run: (_measure_black_box(task, run, measures, queries), ())) for run in runs]
        if not self._apart and any(run.order == "shared" for run in runs):
            check_apart(task)
            self._apart = True
        if any(run.optimizer_state for run in runs):  # replayed one day, which is done in the plain way
            plain = Strategy("alone", 1, False, "optimizer_state is kept")
            return [
                _attempt(run, lambda run: _train_alone(task, run, measures, queries, device, plain)) for run in runs
            ]
        strategy = self._strategy or strategy_of(task, device)
        if not strategy.failed:  # one that did is chosen anew for the next pack
            self._strategy = strategy
        self._engine = engine = self._engine or _engine(task, device, strategy)
        if isinstance(engine, Resident):
            groups = _groups(runs, engine.together)
            return [outcome for group in groups for outcome in _train_resident(engine, group, measures, queries)]
        if engine is not None:
            groups = _groups(runs, strategy.width)
            return [outcome for group in groups for outcome in _train_stacked(engine, group, measures, queries)]
        return [_attempt(run, lambda run: _train_alone(task, run, measures, queries, device, strategy)) for run in runs]


def _groups(runs: Sequence[Run], size: int) -> list[Sequence[Run]]:
    """Cut a pack into groups of at most `size` runs, in order."""
    return [runs[start : start + size] for start in range(0, len(runs), size)]


def _engine(task: DifferentiableTask, device: str, strategy: Strategy) -> Resident | Stacked | None:
    """Return what trains models together by the strategy; None for training alone."""
    if strategy.method == "resident":
        return Resident.of(task)
    if strategy.method in ("stacked", "compiled"):
        return Stacked(task, device, strategy.width if strategy.method == "compiled" else 0)
    return None


def train_pack(
    task: Task | DifferentiableTask,
    runs: Sequence[Run],
    measures: Sequence[str],
    queries: Queries,
    device: str = "cpu",
    width: int | Literal["auto"] = "auto",
    method: Method | Literal["auto"] = "auto",
) -> list[Outcome]:
    """Train one pack: every run of it is trained and measured; return one outcome a run, in order.

    `width` is how many models a differentiable task trains together: 1 trains them alone, the plain way; "auto" does what
    calibration found fastest on this machine (workers.packed.calibration). `method` names the way itself. None of it changes a
    run's results beyond rounding, and what "auto" chooses on a CPU gives the same bits in any pack. An exception of the user's
    code becomes that run's `Failure`. Raises OutOfMemory, with nothing returned, when the device is too small for the pack.
    """
    strategy = strategy_of(task, device, width, method) if isinstance(task, DifferentiableTask) else None
    return PackTrainer(task, device, strategy).train(runs, measures, queries)


def _attempt(run: Run, train: Callable[[Run], Trained]) -> Outcome:
    """Train one run; whatever goes wrong with it is its outcome."""
    started = time.perf_counter()
    try:
        outputs, checkpoints = train(run)
        _refuse_non_finite(outputs)
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"run {run.row}: {error}") from error
        return Outcome(run.row, failure=Failure.of(error), seconds=time.perf_counter() - started)
    return Outcome(run.row, outputs, checkpoints, seconds=time.perf_counter() - started)


def _train_alone(
    task: DifferentiableTask, run: Run, measures: Sequence[str], queries: Queries, device: str, strategy: Strategy
) -> Trained:
    module, checkpoints = alone.train(task, run, device, strategy.channels_last)
    return alone.measure(task, module, measures, queries, device), checkpoints


def _train_resident(trainer: Resident, runs: Sequence[Run], measures: Sequence[str], queries: Queries) -> list[Outcome]:
    """Begin all runs, train one after another, measure all. When a measure raises, each is measured by itself."""
    begun: dict[int, Begun] = {}
    outputs: dict[int, Tensor] = {}
    outcomes = [Outcome(run.row) for run in runs]  # by place: runs of two designs may have the same row

    def begin(place: int, run: Run) -> Trained:
        begun[place] = trainer.begin(run)
        return {}, ()

    def train(place: int, run: Run) -> Trained:
        checkpoints = trainer.train(run, begun[place])
        outputs[place] = trainer.outputs(queries)
        return {}, checkpoints

    def measure(place: int, run: Run) -> Trained:
        found = measured.get(place) or trainer.measure([outputs[place]], measures, queries)[0]
        return found, outcomes[place].checkpoints

    def advance(stage: Callable[[int, Run], Trained], share: float = 0.0) -> None:
        for place, run in enumerate(runs):
            before = outcomes[place]
            if before.failure is None:
                after = _attempt(run, partial(stage, place))
                outcomes[place] = replace(after, seconds=before.seconds + after.seconds + share)

    advance(begin)
    advance(train)
    started = time.perf_counter()
    measured = _measure_together(trainer, outputs, measures, queries)
    advance(measure, share=(time.perf_counter() - started) / len(runs))
    return outcomes


def _measure_together(
    trainer: Resident, outputs: Mapping[int, Tensor], measures: Sequence[str], queries: Queries
) -> dict[int, Outputs]:
    """Return the measures by place; none if any model's cannot be had."""
    try:
        return dict(zip(outputs, trainer.measure(list(outputs.values()), measures, queries), strict=True))
    except Exception:
        return {}


def _train_stacked(trainer: Stacked, runs: Sequence[Run], measures: Sequence[str], queries: Queries) -> list[Outcome]:
    """Train runs in lockstep. When something raises, each is trained again by itself, so that the failure is the right run's."""
    started = time.perf_counter()
    try:
        trained = _train_lockstep(trainer, runs, measures, queries)
    except Exception as error:
        if is_out_of_memory(error):
            trainer.narrow()
            raise OutOfMemory(f"{len(runs)} runs from {runs[0].row}: {error}") from error
        return [_attempt(run, lambda run: _train_lockstep(trainer, [run], measures, queries)[0]) for run in runs]
    share = (time.perf_counter() - started) / len(runs)
    results = iter(trained)
    return [replace(_attempt(run, lambda _: next(results)), seconds=share) for run in runs]


def _train_lockstep(trainer: Stacked, runs: Sequence[Run], measures: Sequence[str], queries: Queries) -> list[Trained]:
    lockstep = trainer.train(runs)
    checkpoints = [tuple(member.checkpoints) for member in lockstep.members]
    return list(zip(lockstep.measure(measures, queries), checkpoints, strict=True))


def _train_own(own: OwnTraining, run: Run, measures: Sequence[str], queries: Queries) -> Trained:
    """Have the task train itself, and measure the module that it returns."""
    _refuse_weights(own.task, run)
    module, checkpoints = own.train(run)
    return own.measure(module, measures, queries), checkpoints


def _measure_black_box(task: Task, run: Run, measures: Sequence[str], queries: Queries) -> Outputs:
    """Train, ask the task for its measures and take the chosen queries; each must be a (t,) array."""
    _refuse_weights(task, run)
    model = task.train(run.subset, run.seed)
    train_queries = queries.source == "train"
    chosen = slice(None) if queries.indices is None else list(queries.indices)
    count = task.n if train_queries else task.t
    measured = _measure_train(task, model) if train_queries else task.measure(model)
    outputs = {}
    for name in measures:
        if name not in measured:
            raise TaskError(f"{type(task).__name__}.measure() has no {name!r}: {near(name, list(measured))}")
        values = np.array(measured[name], dtype=np.float32)  # a copy: a task may fill the same array every time
        if values.shape != (count,):
            raise TaskError(f"{type(task).__name__}.measure()[{name!r}] has shape {values.shape}, expected ({count},)")
        outputs[name] = values[chosen]
    return outputs


def _refuse_weights(task: object, run: Run) -> None:
    """Raise TaskError for a run that only our training can do."""
    if run.order != "own" or run.weights is not None:
        raise TaskError(
            f"{type(task).__name__} trains itself: shared order and weights of examples need a differentiable task"
        )


def _measure_train(task: Task, model: object) -> Measured:
    measure_train = measure_train_of(task)
    if measure_train is None:
        raise TaskError(f"{type(task).__name__} has no method measure_train(model), which training queries need")
    return measure_train(model)


def _refuse_non_finite(outputs: Outputs) -> None:
    """Raise DivergedError if any output is NaN or infinite."""
    for name, values in outputs.items():
        finite = np.isfinite(values)
        if not finite.all():
            bad = int((~finite).sum())
            raise DivergedError(f"measure {name!r} is not finite for {bad} of {len(values)} queries")
