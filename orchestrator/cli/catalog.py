"""The commands that say what there is to choose from, and help to write a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box

from orchestrator.cli.console import err, out, print_json, shown
from orchestrator.cli.parameters import Json
from workers.errors import StoreError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.catalog.entry import Entry
    from orchestrator.catalog.registry import Group

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")] = Path("sweep.yaml"),
) -> None:
    """Write a commented configuration to start from."""
    from orchestrator.config.template import template

    if path.exists():
        raise StoreError(f"{path}: exists already; choose another name")
    path.write_text(template(str(path)), encoding="utf-8")
    out.print(shown(f"{path}: written; run it with `counterfactory run {path}`"), soft_wrap=True, highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, for editors."""
    from orchestrator.config import kept_schema

    print_json(kept_schema.schema())


@app.command()
def configs() -> None:
    """List the configurations that ship."""
    from orchestrator.config.shipped import description, shipped

    out.print(_two_columns((name, description(path)) for name, path in shipped().items()), highlight=False)


@app.command("list")
def list_(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="One of estimators, designs, tasks.")],
    as_json: Json = False,
) -> None:
    """List the estimators, designs or tasks there are, those of installed packages too."""
    from orchestrator.catalog.registry import group as group_of

    found = group_of(group)
    rows = [(name, found.line(name)) for name in found.names()]
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in rows])
    else:
        out.print(_two_columns(rows), highlight=False)
        out.print("[dim]`counterfactory describe NAME` tells all of one.[/]", highlight=False)


@app.command()
def describe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An estimator, a design or a task; your own is path/to/file.py:Class or module:Class, whose code is run.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Say what an estimator, a design or a task is: what it needs, in which units it answers, its options and their defaults."""
    from orchestrator.catalog.registry import named
    from workers.named_code import names_code

    if names_code(name):
        err.print(shown(f"about to run the code of {name.rpartition(':')[0]}"), soft_wrap=True, highlight=False)
    found = named(name)
    if as_json:
        print_json([{"group": group.word, **asdict(entry)} for group, entry in found])
        return
    for place, (group, entry) in enumerate(found):
        if place:
            out.rule(style="dim")
        for part in _described(group, entry):
            out.print(part, highlight=False)


def _two_columns(rows: Iterable[tuple[str, str]]) -> RenderableType:
    """Return names and what is said of each."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold", overflow="ignore")
    table.add_column()
    for name, text in rows:
        table.add_row(shown(name), shown(text))
    return table


def _described(group: Group, entry: Entry) -> Iterator[RenderableType]:
    """Yield what there is to know of one thing."""
    from rich.markdown import Markdown
    from rich.table import Table

    yield f"[bold]{shown(entry.name)}[/], {group.word} [dim]({group.key}: {shown(entry.name)})[/]"
    yield ""
    yield Markdown(
        "\n\n".join((entry.summary, *entry.text, "\n".join(f"- {word}: {answer}" for word, answer in entry.facts)))
    )
    if entry.options:
        yield ""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("option", no_wrap=True, style="bold", overflow="ignore")
        for heading in ("takes", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for option in entry.options:
            table.add_row(
                *map(
                    shown, (option.name, option.accepts.replace("`", ""), option.default, option.about.replace("`", ""))
                )
            )
        yield table
