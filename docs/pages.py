"""Write what is drawn from the code: estimators.md, designs.md, tasks.md, recipe.md, and the schema. `make pages` calls this."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.catalog.page import page, recipe_page
from orchestrator.catalog.registry import GROUPS
from orchestrator.config import kept_schema
from orchestrator.config.json_schema import schema

if __name__ == "__main__":
    here = Path(__file__).parent
    for name, group in GROUPS.items():
        (here / f"{name}.md").write_text(page(name.capitalize(), group), encoding="utf-8")
    (here / "recipe.md").write_text(recipe_page(), encoding="utf-8")
    kept_schema.FILE.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
