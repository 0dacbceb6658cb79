"""The configurations that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped() -> dict[str, Path]:
    """Return the configurations that ship with the package: name -> file."""
    inside = Path(str(resources.files("orchestrator"))) / "configs"
    folder = inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def description(path: Path) -> str:
    """Return what a configuration's first line, a comment, says of it."""
    with path.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("#").strip()
