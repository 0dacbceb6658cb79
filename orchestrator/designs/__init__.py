"""The designs: which subsets are trained on, and what for. One file a family, named once in `registry.py`."""

from __future__ import annotations

from orchestrator.designs.base import Context, Design, ErrorForecast, RandomDesign
from orchestrator.designs.prefixes import Prefixes
from orchestrator.designs.registry import AnyDesign, find, kinds, loadable, register

__all__ = [
    "AnyDesign",
    "Context",
    "Design",
    "ErrorForecast",
    "Prefixes",
    "RandomDesign",
    "find",
    "kinds",
    "loadable",
    "register",
]
