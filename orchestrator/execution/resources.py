"""What a pack asks for, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config.schema import RaySection
from workers.errors import ConfigError
from workers.machine import cores, total_bytes


def refuse_impossible(settings: RaySection) -> None:
    """Raise ConfigError when this machine could never run one pack, before anything is started or written."""
    if settings.address != "local":
        return
    gpus = 0.0
    if settings.num_gpus:
        import torch  # takes a second, and is only here to count GPUs

        gpus = float(torch.cuda.device_count())
    node = {"CPU": float(cores()), "GPU": gpus, "memory": float(total_bytes())}
    room_on(settings, [node])


def room_on(settings: RaySection, nodes: list[dict[str, float]]) -> int:
    """Return how many packs nodes have room for. Raises ConfigError, naming what is lacking, for none or fewer than asked."""
    asked = {"CPU": settings.num_cpus, "GPU": settings.num_gpus, "memory": float(settings.memory or 0)}

    def fits(node: Mapping[str, float]) -> int:
        return min(int(node.get(kind, 0) // amount) for kind, amount in asked.items() if amount)

    slots = sum(fits(node) for node in nodes)
    if slots == 0:
        best = {kind: max((node.get(kind, 0) for node in nodes), default=0) for kind, amount in asked.items() if amount}
        want = ", ".join(f"{kind} {amount:g}" for kind, amount in asked.items() if amount)
        have = ", ".join(f"{kind} {amount:g}" for kind, amount in best.items())
        raise ConfigError(f"ray: a pack asks for {want}, but the largest node has {have}; ask for less or add a node")
    if settings.workers is not None and settings.workers > slots:
        raise ConfigError(f"ray.workers: {settings.workers} packs at once do not fit, the nodes have room for {slots}")
    return slots


def resolve_device(settings: RaySection) -> str:
    """Return the device a pack trains on: cuda when it is there and a share of it is asked for."""
    if settings.device != "auto":
        return settings.device
    if not settings.num_gpus:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
