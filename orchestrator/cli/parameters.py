"""What several commands take: arguments, options, and the sweep that they name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import err, shown
from workers.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.sweeps.sweep import Sweep

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of one that ships.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides such as seed=1 or designs.fit.subsets=500."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="The sweep's folder; by default runs/NAME, by the configuration's name.")
]
Sample = Annotated[
    float | None,
    typer.Option(
        "--sample",
        min=0,
        max=1,
        help="Only this fraction of every design's runs, for a quick look; into runs/NAME-sample-FRACTION.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before a sweep that is forecast to be long.")]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Go on though data, source, versions, ... changed.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Train failed runs again.")]


def asked(config: str, overrides: list[str] | None, out_dir: Path | None, sample: float | None = None) -> Sweep:
    """Return the sweep that a command names."""
    from orchestrator.sweeps.request import requested

    return requested(config, out_dir, overrides or (), sample)


def looked_at(folder: Path) -> Sweep:
    """Return the sweep that a folder holds, to be looked at."""
    from orchestrator.sweeps.sweep import Sweep

    return Sweep.at(folder)


def to_go_on(folder: Path, accept_changes: bool) -> Sweep:
    """Return the sweep that a folder holds, its estimators checked; it may be edited if that is accepted."""
    from orchestrator.cli.session import announce_estimators
    from orchestrator.sweeps.sweep import Sweep

    sweep = Sweep.at(folder, edited=accept_changes)
    announce_estimators(sweep)
    return sweep.with_options()


def ask(forecast: str) -> None:
    """Ask before a long sweep, where there is somebody to answer. Raises ConfigError where there is not."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{forecast}: that is long; add --yes if it is meant")
    err.print(shown(forecast), highlight=False)
    typer.confirm("Train it?", abort=True)
