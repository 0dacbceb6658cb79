"""Choose how a task is trained, once for each task and machine: every way is timed on a short training, the fastest is kept.

The choice is written to a folder (`COUNTERFACTORY_CACHE`, or the user's cache folder) and read from there ever after, so that
noise in the timing never changes a later pack. Where two workers calibrate at once, the first to finish decides for both.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from workers.data.nested import leaves
from workers.errors import ConfigError, UserError, one_line
from workers.kernels import cpu
from workers.machine import cache_folder
from workers.packed.choice import Probe, best_lockstep, fastest, is_resident
from workers.packed.strategy import Method, Strategy
from workers.randomness.streams import build_module
from workers.task import DifferentiableTask

_FORMAT = 3
"""Raised whenever a way changes what it costs, so that old choices are measured anew."""


def strategy_of(
    task: DifferentiableTask,
    device: str,
    width: int | Literal["auto"] = "auto",
    method: Method | Literal["auto"] = "auto",
    pack: int | None = None,
) -> Strategy:
    """Return how to train packs of the task on the device; `pack` is how many runs they have, None where that is not known.

    A width of 1 is training alone; another number asks for packed training, in lockstep by so many where the resident kernels
    do not apply. "auto" is what was measured fastest. Raises ConfigError for a method that the task or the device does not allow.
    """
    if method == "resident" and not is_resident(task, device):
        raise ConfigError(
            "method 'resident' needs a chain of Linear layers with a built-in loss and an output for every label, in float32 or "
            "float64, on the CPU, without augmentation, clip_norm, accumulate, no_decay, ema and eps_in: root"
        )
    if method == "auto" and width == "auto":
        return calibrated(task, device, pack)
    if method == "auto":
        method = "alone" if width == 1 else "resident" if is_resident(task, device) else "stacked"
    if method not in ("stacked", "compiled"):
        return Strategy(method, 1, False, "as asked for")
    if isinstance(width, int):
        return Strategy(method, width, False, "as asked for")
    best = best_lockstep(Probe(task, device))
    why_not = f"; lockstep is not possible: {best.why_not}" if best.why_not else ""
    return Strategy(method, best.width, False, f"as asked for{why_not}")


def calibrated(task: DifferentiableTask, device: str, pack: int | None = None) -> Strategy:
    """Return the strategy measured for this task, machine and size of packs, measuring now if nobody has.

    A task whose own code fails is to be trained alone, where every run says so for itself; that is not kept. What cannot be
    written to the folder is still the way that was measured, and says so.
    """
    folder = cache_folder("packing")
    try:
        file = folder / f"{_fingerprint(task, device, pack)}.json"
        return _kept(file) or _kept_for_all(folder, task, device) or _published(fastest(task, device, pack), file)
    except UserError:
        raise
    except Exception as error:
        return Strategy("alone", 1, False, f"the short training failed: {one_line(error)}", failed=True)


def _kept_for_all(folder: Path, task: DifferentiableTask, device: str) -> Strategy | None:
    """Return the strategy measured without a limit to the width, if that is not lockstep: then a narrower one is not faster."""
    kept = _kept(folder / f"{_fingerprint(task, device, None)}.json")
    return kept if kept is not None and kept.width == 1 else None


def _kept(file: Path) -> Strategy | None:
    """Return the strategy in a file; None where there is none, or none that can be read: it is measured anew."""
    try:
        return Strategy.from_json(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _fingerprint(task: DifferentiableTask, device: str, pack: int | None) -> str:
    """Return a hash of all that decides which way is fastest."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else cpu.CPU_NAME
    module, _ = build_module(task.module, 0, torch.float32)
    parts = [
        _FORMAT, f"{type(task).__module__}.{type(task).__qualname__}", repr(module), task.recipe.model_dump_json(),
        task.n, _shapes(task), device, name,
        torch.__version__, torch.get_num_threads(), task.train_weights is not None,
        *([] if pack is None else [pack]),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _shapes(task: DifferentiableTask) -> list[list[object]]:
    """Return where each part of an example's inputs is, its type and its shape."""
    inputs, _ = task.examples("train").read(torch.zeros(1, dtype=torch.int64))
    return [[where, str(leaf.dtype), list(leaf.shape[1:])] for where, leaf in leaves(inputs)]


def _published(strategy: Strategy, file: Path) -> Strategy:
    """Write the strategy unless another worker's is there already; return the one that is there."""
    try:
        _publish(strategy, file)
    except OSError as error:
        return replace(
            strategy, reason=f"{strategy.reason}; not kept for later sweeps, {file.parent}: {error.strerror}"
        )
    return _kept(file) or strategy


def _publish(strategy: Strategy, file: Path) -> None:
    """Write the strategy, in place of a file that cannot be read."""
    if file.exists() and _kept(file) is None:
        file.unlink()
    with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False) as part:
        json.dump(strategy.to_json(), part)
    try:
        os.link(part.name, file)
    except FileExistsError:
        pass
    finally:
        os.unlink(part.name)
