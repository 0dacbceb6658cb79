"""Write the pages that are drawn from the code: estimators.md, designs.md, tasks.md, recipe.md. `make pages` calls this."""

from __future__ import annotations

from pathlib import Path

from orchestrator.catalog.page import page, recipe_page
from orchestrator.catalog.registry import GROUPS

if __name__ == "__main__":
    here = Path(__file__).parent
    for name, group in GROUPS.items():
        (here / f"{name}.md").write_text(page(name.capitalize(), group), encoding="utf-8")
    (here / "recipe.md").write_text(recipe_page(), encoding="utf-8")
