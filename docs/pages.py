"""Write the pages that are drawn from the code: estimators.md, designs.md, tasks.md. `make pages` calls this."""

from __future__ import annotations

from pathlib import Path

from orchestrator.catalog.page import page
from orchestrator.catalog.registry import GROUPS

if __name__ == "__main__":
    for name, group in GROUPS.items():
        (Path(__file__).parent / f"{name}.md").write_text(page(name.capitalize(), group), encoding="utf-8")
