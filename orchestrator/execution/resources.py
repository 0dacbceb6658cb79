"""What a pack asks for, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config.schema import RaySection
from workers.errors import ConfigError
from workers.machine import cores, total_bytes


def refuse_impossible(settings: RaySection) -> None:
    """Raise ConfigError when this machine could never run one pack, before anything is started or written."""
    if settings.address != "local":
        return
    room_on(settings, [_this_machine(settings)])
    if settings.device == "cuda":
        import torch  # takes a second

        if not torch.cuda.is_available():
            raise ConfigError("ray.device: cuda is asked for, but PyTorch finds no GPU here; expected auto or cpu")


def room_on(settings: RaySection, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many packs nodes have room for. Raises ConfigError, naming what is lacking, for none or fewer than asked."""
    slots, asked = _fitting(settings, nodes), _asked(settings)
    if slots == 0:
        best = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind in asked}
        want = ", ".join(f"{kind} {amount:g}" for kind, amount in asked.items())
        have = ", ".join(f"{kind} {amount:g}" for kind, amount in best.items())
        raise ConfigError(f"ray: a pack asks for {want}, but the largest node has {have}; ask for less or add a node")
    if settings.workers is not None and settings.workers > slots:
        raise ConfigError(f"ray.workers: {settings.workers} packs at once do not fit, the nodes have room for {slots}")
    return slots


def expected_slots(settings: RaySection) -> int:
    """Return how many packs will be trained at once: as many as are asked for, else as this machine has room for.

    Of a cluster, which is not joined to ask, one machine like this is expected, and room for a pack at least.
    """
    return settings.workers or max(1, _fitting(settings, [_this_machine(settings)]))


def _asked(settings: RaySection) -> dict[str, float]:
    """Return what a pack asks for, by the name that Ray has for it."""
    asked = {"CPU": settings.num_cpus, "GPU": settings.num_gpus, "memory": float(settings.memory or 0)}
    return {kind: amount for kind, amount in asked.items() if amount}


def _fitting(settings: RaySection, nodes: Sequence[Mapping[str, float]]) -> int:
    asked = _asked(settings)
    return sum(min(int(node.get(kind, 0) // amount) for kind, amount in asked.items()) for node in nodes)


def _this_machine(settings: RaySection) -> dict[str, float]:
    """Return what this machine has; its GPUs only if a pack asks for any."""
    gpus = 0.0
    if settings.num_gpus:
        import torch  # takes a second, and is only here to count GPUs

        gpus = float(torch.cuda.device_count())
    return {"CPU": float(cores()), "GPU": gpus, "memory": float(total_bytes())}


def resolve_device(settings: RaySection) -> str:
    """Return the device a pack trains on: cuda when it is there and a share of it is asked for."""
    if settings.device != "auto":
        return settings.device
    if not settings.num_gpus:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
