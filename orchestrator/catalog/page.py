"""Pages of the documentation, drawn from the catalog and from the recipe, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from estimators.registry import is_adapter
from orchestrator.catalog.entry import Entry, Option, paragraphs
from orchestrator.catalog.options import options_of
from orchestrator.catalog.registry import Group
from workers.recipe import Recipe

INTRODUCTIONS = {
    "estimator": "What turns runs or gradients into attributions. `counterfactory describe NAME` says the same on a terminal.\n\n"
    "A label in the section `estimators` is the name of an estimator, or has a key `estimator` that names it:\n\n"
    "```yaml\nestimators:\n  datamodel: {}\n  half: {estimator: datamodel, design: half}\n```",
    "design": "Which subsets are trained on. `counterfactory describe NAME` says the same on a terminal.\n\n"
    "Each label in the section `designs` has a `kind`:\n\n"
    "```yaml\ndesigns:\n  fit: {kind: bernoulli, probability: 0.5, subsets: 1000}\n"
    "  held_out: {kind: bernoulli, purpose: score, subsets: 100, seeds: 2}\n```",
    "task": "What is trained, on which data. `counterfactory describe NAME` says the same on a terminal. "
    "Your own is described in [your-own-task.md](your-own-task.md).\n\n"
    "```yaml\ntask:\n  name: digits\n  arguments: {n: 500, model: logistic}\n```",
}
"""By a group's word."""
RECIPE = (
    "Fields of a `Recipe`, of your own task ([your-own-task.md](your-own-task.md)), or of a built-in task's argument `recipe`, "
    "in place of its own:\n\n"
    "```yaml\ntask:\n  name: mnist\n  arguments:\n"
    "    recipe: {optimizer: adamw, lr: 0.001, schedule: linear, warmup_ratio: 0.1}\n```"
)
_DRAWN = "<!-- Drawn from the code by `make pages`: change the docstrings and descriptions there. -->"


def page(title: str, group: Group) -> str:
    """Return the page of a group, the same whichever other libraries are installed."""
    entries = [entry for entry in group.entries() if not (group.word == "estimator" and is_adapter(entry.name))]
    lines = [
        _DRAWN,
        f"# {title}",
        "",
        INTRODUCTIONS[group.word],
        "",
        f"| {group.word} | what it is |",
        "| --- | --- |",
        *(f"| [`{entry.name}`](#{entry.name}) | {_cell(entry.summary)} |" for entry in entries),
    ]
    for entry in entries:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def recipe_page() -> str:
    """Return the page of the training recipe."""
    summary, *others = paragraphs(Recipe)
    table = _table(options_of(Recipe))
    return "\n".join([_DRAWN, "# Recipe", "", summary, "", RECIPE, "", *table, "", "\n\n".join(others)]) + "\n"


def _section(entry: Entry) -> Iterator[str]:
    yield f"## {entry.name}"
    yield ""
    yield entry.summary
    for paragraph in entry.text:
        yield ""
        yield paragraph
    yield ""
    for word, answer in entry.facts:
        yield f"- **{word}**: {answer}"
    if entry.options:
        yield ""
        yield from _table(entry.options)


def _table(options: Iterable[Option]) -> Iterator[str]:
    yield "| option | takes | default | meaning |"
    yield "| --- | --- | --- | --- |"
    yield from map(_row, options)


def _row(option: Option) -> str:
    default = option.default if option.default == "required" else f"`{option.default}`"
    return f"| `{option.name}` | {_cell(option.accepts)} | {default} | {_cell(option.about)} |"


def _cell(text: str) -> str:
    """Return text that may stand in a table."""
    return text.replace("\n", " ").replace("|", "\\|")
