"""Where a sweep's runs come from: the data and the libraries that computed them."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from orchestrator.sweeps.sweep import Sweep


def provenance(sweep: Sweep) -> dict[str, Any]:
    """Return what the store remembers of where its runs come from."""
    import torch

    packages = {name: version(name) for name in ("torch", "ray", "numpy", "zarr")}
    return {
        "data_hash": sweep.data_hash(),
        "python": sys.version.split()[0],
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        **packages,
    }
