"""The command line: `counterfactory COMMAND`. Thin: it parses, calls a stage, shows what came of it.

Every command imports what it needs when it is called: help and mistakes are answered at once, and looking at a sweep imports
neither PyTorch nor Ray.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import catalog
from orchestrator.cli.console import err, out, print_json, shown
from workers.errors import ConfigError, CounterfactoryError, UserError

if TYPE_CHECKING:
    from orchestrator.sweeps.sweep import Sweep

app = typer.Typer(
    name="counterfactory",
    help="A factory of counterfactuals: retrain on subsets, keep every outcome, attribute, judge.\n\n"
    "`counterfactory run digits` does it all on handwritten digits; `counterfactory init my.yaml` writes a configuration to "
    "start from. Exit codes: 0 well, 1 something failed or disagrees, 2 a mistake in what was asked, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of one that ships.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides such as seed=1 or designs.fit.subsets=500."),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder.")]
Out = Annotated[Path | None, typer.Option("--out", help="The sweep's folder; by default runs/<name>.")]
Sample = Annotated[
    float | None,
    typer.Option(
        "--sample",
        min=0,
        max=1,
        help="Only this fraction of every design's runs, for a quick look; into runs/<name>-sample-<fraction>.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before a sweep that is forecast to be long.")]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Go on though data, source, versions, ... changed.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Train failed runs again.")]


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is answered like Ctrl-C
    try:
        app()
    except (CounterfactoryError, OSError) as error:
        sys.exit(_explain(error))
    except SystemExit as stop:
        if _cut_off(stop):
            err.print("interrupted; the same command goes on from here")
            # What was cut off half-made (an event loop of Ray's, say) fails in its own __del__; that is nobody's concern.
            sys.unraisablehook = lambda _: None
        raise


def _explain(error: CounterfactoryError | OSError) -> int:
    """Say in a line what went wrong; return the exit code: 2 for a mistake in what was asked, 1 for anything else."""
    if isinstance(error, UserError | OSError):
        err.print(f"[bold red]error:[/] {shown(str(error))}", soft_wrap=True, highlight=False)
        return 2
    from orchestrator.execution.scheduler import EveryRunFailedError

    stopped = isinstance(error, EveryRunFailedError)
    word = "stopped" if stopped else "failed"
    err.print(f"[bold red]{word}:[/] {shown(str(error))}", soft_wrap=True, highlight=False)
    if stopped:
        err.print(
            "The tracebacks are kept: `counterfactory status DIR`. Mend the cause, then run with --retry-failed.",
            soft_wrap=True,
        )
    return 1


def _cut_off(error: BaseException | None) -> bool:
    """Say whether a Ctrl-C is behind an exception that nobody has answered: typer turns it into a silent exit with code 130."""
    from orchestrator.cli.interrupts import Interrupted

    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None and not isinstance(error, Interrupted)


def _print_suspects(sweep: Sweep) -> None:
    """Name the examples that look mislabelled, where the task mislabelled some."""
    from orchestrator.cli.leaderboard import suspects_table
    from orchestrator.scoring.suspects import named_suspects

    if found := named_suspects(sweep):
        out.print(suspects_table(found))


def _asked(config: str, overrides: list[str] | None, out_dir: Path | None, sample: float | None = None) -> Sweep:
    """Return the sweep that a command names."""
    from orchestrator.sweeps.request import requested

    return requested(config, out_dir, overrides or (), sample)


def _at(folder: Path) -> Sweep:
    """Return the sweep that a folder holds, to be looked at."""
    from orchestrator.sweeps.sweep import Sweep

    return Sweep.at(folder)


def _to_go_on(folder: Path, accept_changes: bool) -> Sweep:
    """Return the sweep that a folder holds, its estimators checked; it may be edited if that is accepted."""
    from orchestrator.cli.session import announce_estimators
    from orchestrator.sweeps.sweep import Sweep

    sweep = Sweep.at(folder, edited=accept_changes)
    announce_estimators(sweep)
    return sweep.with_options()


def _ask(forecast: str) -> None:
    """Ask before a long sweep, where there is somebody to answer. Raises ConfigError where there is not."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{forecast}: that is long; add --yes if it is meant")
    err.print(shown(forecast), highlight=False)
    typer.confirm("Train it?", abort=True)


@app.command()
def run(
    config: ConfigArgument,
    overrides: Overrides = None,
    out_dir: Out = None,
    sample: Sample = None,
    retry_failed: RetryFailed = False,
    accept_changes: AcceptChanges = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Do everything: plan, retrain, attribute, score, report; goes on where a former call ended."""
    sweep = _asked(config, overrides, out_dir, sample)  # a mistake in it is said before the stages are imported
    if sample is not None:
        err.print(shown(f"a sample of {sample:g}, into {sweep.paths.root}"), soft_wrap=True, highlight=False)
    from orchestrator.cli import tables
    from orchestrator.cli.session import run_sweep

    outcome = run_sweep(sweep, retry_failed=retry_failed, accept_changes=accept_changes, ask=None if yes else _ask)
    if as_json:
        folder = str(outcome.sweep.paths.root)
        print_json({"folder": folder, "report": str(outcome.report), "scores": tables.records(outcome.scores)})
    else:
        out.print(tables.leaderboard(outcome.scores))
        _print_suspects(outcome.sweep)
        out.print(f"report: {shown(outcome.report)}", soft_wrap=True, highlight=False)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def plan(
    config: ConfigArgument,
    overrides: Overrides = None,
    out_dir: Out = None,
    sample: Sample = None,
    as_json: Json = False,
) -> None:
    """Check a configuration, train a few runs to see how long they take, and show what the sweep would cost; writes nothing."""
    sweep = _asked(config, overrides, out_dir, sample)
    from orchestrator.cli import tables
    from orchestrator.stages.forecast import settle
    from orchestrator.stages.plan import preview
    from orchestrator.sweeps.identity import why_other

    sweep, expected = settle(sweep, always=True)
    planned = preview(sweep)
    if refused := why_other(sweep):
        err.print(shown(f"`run` would be refused: {refused}"), soft_wrap=True, highlight=False)
    if as_json:
        print_json(
            {
                "folder": str(sweep.paths.root),
                "identity": sweep.config.identity(),
                "designs": tables.rows(planned),
                "forecast": None if expected is None else {**expected.to_json(), "total": expected.total},
            }
        )
    else:
        out.print(tables.plan_table(sweep, planned, expected))


@app.command()
def retrain(
    folder: Folder, retry_failed: RetryFailed = False, accept_changes: AcceptChanges = False, yes: Yes = False
) -> None:
    """Train every run that the sweep in DIR lacks; when there is none, those of the removal curves of its attributions."""
    sweep = _to_go_on(folder, accept_changes)
    from orchestrator.cli.session import prepared, remove_watched, retrain_watched, settled
    from orchestrator.retraining.counts import finished

    with prepared(sweep := settled(sweep, ask=None if yes else _ask), accept_changes) as store:
        lacking = any(pending for _, _, pending in finished(sweep, store).values())
        failed = retrain_watched(sweep, store, retry_failed)
        if not lacking:  # else the attributions are to be computed anew first
            failed += remove_watched(sweep, retry_failed, accept_changes)
    if failed:
        raise typer.Exit(1)


@app.command()
def attribute(
    folder: Folder,
    again: Annotated[bool, typer.Option("--again", help="Compute all of them anew.")] = False,
    accept_changes: AcceptChanges = False,
) -> None:
    """Compute the attributions of the sweep in DIR from its finished runs."""
    sweep = _to_go_on(folder, accept_changes)
    from orchestrator.cli.session import attribute_watched, say_missing
    from orchestrator.store.run_store import RunStore
    from orchestrator.sweeps.identity import accept_edit

    with RunStore.open(sweep.paths, write=True) as store:
        if accept_changes:
            accept_edit(sweep, store)
        say_missing(sweep)
        failed = attribute_watched(sweep, store, again, accept_changes=accept_changes)
    if failed:
        raise typer.Exit(1)


@app.command()
def score(
    folder: Folder,
    attributions: Annotated[
        Path | None, typer.Option("--attributions", help="Judge this (n, t) .npy array instead; stores nothing.")
    ] = None,
    measure: Annotated[str | None, typer.Option(help="With --attributions: the measure it attributes.")] = None,
    as_json: Json = False,
) -> None:
    """Judge attributions by held-out retrainings (LDS) and leave-one-out effects."""
    if measure is not None and attributions is None:
        raise ConfigError("--measure goes with --attributions: a sweep's own estimators name their measures")
    sweep = _at(folder)
    from orchestrator.cli import tables
    from orchestrator.cli.session import say_absent, say_missing, say_untrained
    from orchestrator.stages import score as scoring
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths, write=attributions is None) as store:
        say_missing(sweep)
        if attributions is None:
            say_absent(sweep)
            say_untrained(sweep)
        scores = (
            scoring.score(sweep, store) if attributions is None else scoring.judge(sweep, store, attributions, measure)
        )
    if as_json:
        print_json(tables.records(scores))
    else:
        out.print(tables.leaderboard(scores))
        if attributions is None:
            _print_suspects(sweep)


@app.command()
def report(folder: Folder) -> None:
    """Write report.html for the sweep in DIR."""
    sweep = _at(folder)
    from orchestrator.cli.session import say_absent, say_missing
    from orchestrator.stages import report as reporting
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths, write=True) as store:
        say_missing(sweep)
        say_absent(sweep)
        out.print(shown(reporting.report(sweep, store)), soft_wrap=True, highlight=False)


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show how the sweep in DIR stands, also while it is running elsewhere."""
    sweep = _at(folder)
    from orchestrator.cli import tables
    from orchestrator.stages import status as standing
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths) as store:
        found = standing.status(sweep, store)
    if as_json:
        print_json(found.to_json())
    else:
        out.print(tables.status_view(found))


@app.command()
def verify(
    folder: Folder,
    rerun: Annotated[int, typer.Option("--rerun", min=0, help="Train so many finished runs again and compare.")] = 0,
    accept_changes: AcceptChanges = False,
    as_json: Json = False,
) -> None:
    """Check every row against its hash, and some runs by training them again; exit code 1 if anything disagrees."""
    sweep = _at(folder)
    from orchestrator.cli import tables
    from orchestrator.retraining.counts import finished
    from orchestrator.stages import verify as verifying
    from orchestrator.store.run_store import RunStore

    if rerun:
        from orchestrator.cli.session import announce

        announce(sweep)
    with RunStore.open(sweep.paths) as store:
        damages = verifying.check_rows(store)
        sound = not damages  # what is damaged has to be put right first
        reruns = verifying.rerun(sweep, store, rerun, accept_changes=accept_changes) if rerun and sound else []
        changes = verifying.machine_changes(sweep) if rerun and sound else {}
        counts = finished(sweep, store) if sound else {}
    if as_json:
        print_json({"damages": tables.rows(damages), "reruns": tables.rows(reruns), "machine_changes": changes})
    else:
        out.print(tables.verification(counts, damages, reruns, changes))
    if damages or not all(one.equal for one in reruns):
        raise typer.Exit(1)


@app.command("import")
def import_runs(
    fit: Annotated[
        Path,
        typer.Option(
            metavar="SOURCE", help="Runs to fit on: a folder or file in one of the formats of docs/import.md."
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="The new sweep's folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Estimators and scores, such as estimators.datamodel.folds=5."),
    ] = None,
    outputs: Annotated[
        str | None, typer.Option(metavar="NAME", help="Their outputs: a name in the source's folder, or a file.")
    ] = None,
    score: Annotated[Path | None, typer.Option(metavar="SOURCE", help="Runs to score on, of other subsets.")] = None,
    score_outputs: Annotated[
        str | None, typer.Option(metavar="NAME", help="Their outputs; by default named as the fitting runs'.")
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="What the outputs are; by default what the format keeps, else margin.")
    ] = None,
    keep_signs: Annotated[
        bool, typer.Option("--keep-signs", help="Take outputs as they are, also where a format keeps them negated.")
    ] = False,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="Training examples, where the source does not say.")
    ] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Without --score: the fraction of the subsets to keep for scoring (0.1).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws them; and all else that is drawn later.")] = 0,
    as_json: Json = False,
) -> None:
    """Read runs that were made elsewhere into a new sweep: then attribute, score and report it, with no task at all."""
    from orchestrator.cli import tables
    from orchestrator.imports.survey import Request
    from orchestrator.stages import import_runs as importing

    request = Request(
        fit, outputs, score, score_outputs, measure, n, holdout, seed, keep_signs, overrides=tuple(overrides or ())
    )
    imported = importing.import_runs(request, out_dir)
    if as_json:
        print_json({"folder": str(out_dir), "designs": tables.rows(imported)})
    else:
        out.print(tables.import_table(imported))
        out.print(shown(f"{out_dir}: go on with `counterfactory attribute {out_dir}`"), soft_wrap=True, highlight=False)


@app.command()
def export(
    folder: Folder,
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE|FOLDER", help="A name ending in .parquet or .npz, or a folder.")
    ],
    name: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="For a folder: one of the formats above.")
    ] = None,
    design: Annotated[str | None, typer.Option(help="For a folder: only this design's runs.")] = None,
    measure: Annotated[str | None, typer.Option(help="For a folder: only this measure.")] = None,
    mean: Annotated[
        bool,
        typer.Option("--mean-of-seeds", help="For a folder: a row a subset, the mean over its seeds, not a row a run."),
    ] = False,
) -> None:
    """Write runs and attributions in a format that other programs read.

    One file, of all runs and their states, by its ending:

    - `.parquet`: a row a run, with lists of examples and outputs; no attributions
    - `.npz`: arrays of every design, and every attribution

    A folder of finished runs, a folder in it for each design, by `--format`:

    - `npy`: masks (m, n) bool and outputs (m, t), as MadryLab's datamodels have them
    - `npy-packed`: masks eight a byte, as `numpy.packbits` makes them
    - `npy-indices`: kept examples (m, k), where all subsets have as many
    - `pt`, `pt-indices`: the same as PyTorch's tensors
    - `kronfluence`: masks int8 and outputs as pickled arrays; scores (t, n), of leaving out
    - `dattri`: kept indices and minus the measure; leave-one-out runs; scores (n, t), of leaving out

    `import` reads all of them back but `.parquet` and `.npz`.
    """
    sweep = _at(folder)
    from orchestrator.stages import export as exporting
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths) as store:
        done = exporting.export(exporting.Request(sweep, store, to, design, measure, mean), name)
    out.print(shown(f"{to}: {done.count:,} {done.unit}"), soft_wrap=True, highlight=False)
    for line in done.said:
        out.print(shown(line), soft_wrap=True, highlight=False)


app.add_typer(catalog.app)
