"""The templates beside this file: every value put into them is escaped, and one that is missing is an error."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template


@cache
def template(name: str) -> Template:
    """Return a template by its file's name."""
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def resource(name: str) -> str:
    """Return the text of a file beside this one."""
    return files("orchestrator.report.page").joinpath(name).read_text(encoding="utf-8")
