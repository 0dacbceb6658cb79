"""What a design's runs, and gradients that are kept, take on the disk, at most: to refuse a disk that is too small, no estimate.

Runs that fail keep a traceback each, of which nobody knows the length; they are not counted.
"""

from __future__ import annotations

import json
import math

from estimators.evidence import Evidence
from estimators.gradient_based.projected import ProjectingEstimator
from orchestrator.store.chunked_arrays import CHUNK_BYTES
from orchestrator.sweeps.plan import DesignPlan
from orchestrator.sweeps.sweep import Sweep
from workers.task import DifferentiableTask

BLOCK = 4096
"""What a file or a folder takes beyond its bytes, at most: a block that is begun."""
PLAN_BYTES = 16
"""Seed, subset and repeat of a row."""
RECORD_BYTES, EPOCH_BYTES, PACK_BYTES = 256, 64, 512
"""Of the ledger: a row, each of its checkpoints, what a record holds beside its rows."""
LINE_BYTES = 20
"""Of the list of packs that were committed: a line."""
TENSOR_BYTES, HEADER_BYTES = 256, 512
"""Of a checkpoint's header: a tensor's name, type and place; everything else."""
CHECKSUM_BYTES, IDENTITY_BYTES = 32, 4 * BLOCK
"""Of gradients that are kept: a chunk's checksum in the metadata, and all else that the metadata says of a network."""


def disk_bound(sweep: Sweep, plan: DesignPlan) -> int:
    """Return how many bytes a design's arrays, ledger and checkpoints take at most, once all its runs are done."""
    return _arrays(sweep, plan) + _ledger(plan) + _checkpoints(sweep, plan)


def kept_bound(sweep: Sweep) -> int:
    """Return how many bytes estimators with `store: true` keep of the training examples' gradients at most.

    Estimators that differ in their number of models share what they keep. Attributions of queries that come later are no
    part of it, for nobody knows how many will come.
    """
    shared: dict[str, int] = {}
    for section in sweep.config.estimators.values():
        options = section.options
        if isinstance(options, ProjectingEstimator) and options.store:
            plain = options.model_dump(mode="json", exclude={"models"})
            key = json.dumps([section.estimator, section.measure, plain], sort_keys=True)
            measure = section.measure or sweep.config.measures[0]
            shared[key] = max(shared.get(key, 0), _kept(sweep, options, measure))
    return sum(shared.values()) + (2 * BLOCK if shared else 0)


def _kept(sweep: Sweep, estimator: ProjectingEstimator, measure: str) -> int:
    """Return what one estimator keeps of the models that there will be."""
    evidence = Evidence(sweep.task.n, sweep.t, measure, task=sweep.task, queries=sweep.queries, seed=sweep.config.seed)
    left, total = estimator.models or math.inf, 2 * BLOCK
    for plan in sweep.plans.values():
        if plan.design.purpose != "fit" or not plan.checkpoint_epochs:
            continue
        models = int(min(plan.runs, left))
        left -= models
        networks, arrays = estimator.kept_arrays(evidence, plan.checkpoint_epochs)
        # Of every chunk a block that is begun, and its checksum; of every array a folder and its metadata.
        chunks = sum(1 + math.ceil(size / (CHUNK_BYTES // 2)) for size in arrays)
        one = sum(arrays) + chunks * (BLOCK + CHECKSUM_BYTES) + 3 * BLOCK * len(arrays) + IDENTITY_BYTES
        total += models * networks * one
    return total


def _arrays(sweep: Sweep, plan: DesignPlan) -> int:
    """Every pack is a chunk of each array, the last one too; chunks of noise grow a little when they are compressed."""
    row = math.ceil(sweep.task.n / 8) + 4 * sweep.t * len(sweep.config.measures) + PLAN_BYTES
    row += 4 * sweep.task.n * plan.weighted
    arrays = 4 + plan.weighted + len(sweep.config.measures)
    chunks = math.ceil(row * plan.pack * (1 + 1 / 256)) + arrays * BLOCK
    return plan.packs * chunks + (arrays + 2) * 2 * BLOCK  # and a folder with metadata for each array and group


def _ledger(plan: DesignPlan) -> int:
    row = RECORD_BYTES + EPOCH_BYTES * len(plan.checkpoint_epochs)
    return plan.runs * row + plan.packs * (PACK_BYTES + LINE_BYTES + BLOCK) + 3 * BLOCK  # folder, plan, list of packs


def _checkpoints(sweep: Sweep, plan: DesignPlan) -> int:
    if not plan.checkpoint_epochs:
        return 0
    one = HEADER_BYTES + BLOCK + sum(tensor + TENSOR_BYTES for tensor in sweep.state_bytes().values())
    one += _optimizer_state(sweep, plan)
    return plan.runs * (len(plan.checkpoint_epochs) * one + BLOCK) + BLOCK


def _optimizer_state(sweep: Sweep, plan: DesignPlan) -> int:
    """Up to two moments and an average, each as large as the parameters; buffers have none, and are counted all the same."""
    recipe = sweep.task.recipe if isinstance(sweep.task, DifferentiableTask) else None
    if recipe is None or not plan.design.keeps_optimizer_state:
        return 0
    copies = (2 if recipe.optimizer != "sgd" else int(recipe.momentum > 0)) + (recipe.ema is not None)
    return copies * sum(tensor + TENSOR_BYTES for tensor in sweep.state_bytes().values())
