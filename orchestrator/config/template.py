"""The commented configuration that `counterfactory init` writes: `template.yaml`, beside this file."""

from __future__ import annotations

from importlib import resources

NAME = "sweep.yaml"
"""What the template calls itself; what is written calls itself by its own name."""


def template(name: str) -> str:
    """Return the template as a file of that name has it."""
    text = (resources.files("orchestrator.config") / "template.yaml").read_text(encoding="utf-8")
    return text.replace(f"run {NAME}", f"run {name}", 1)
