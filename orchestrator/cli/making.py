"""The commands that make a sweep, and something of it: run, plan, retrain, attribute, score, report, import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.console import err, out, print_json, shown
from orchestrator.cli.parameters import (
    AcceptChanges,
    ConfigArgument,
    Folder,
    Json,
    Out,
    Overrides,
    RetryFailed,
    Sample,
    Yes,
    ask,
    asked,
    looked_at,
    to_go_on,
)
from workers.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.store.run_store import RunStore
    from orchestrator.sweeps.sweep import Sweep

app = typer.Typer(rich_markup_mode="markdown")


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
    sweep = asked(config, overrides, out_dir, sample)  # a mistake in it is said before the stages are imported
    if sample is not None:
        err.print(shown(f"a sample of {sample:g}, into {sweep.paths.root}"), soft_wrap=True, highlight=False)
    from orchestrator.cli import tables
    from orchestrator.cli.session import run_sweep

    outcome = run_sweep(sweep, retry_failed=retry_failed, accept_changes=accept_changes, ask=None if yes else ask)
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
    sweep = asked(config, overrides, out_dir, sample)
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
                "forecast": None
                if expected is None
                else {**expected.to_json(), "total": expected.total, "left_out": expected.left_out},
            }
        )
    else:
        out.print(tables.plan_table(sweep, planned, expected))


@app.command()
def retrain(
    folder: Folder, retry_failed: RetryFailed = False, accept_changes: AcceptChanges = False, yes: Yes = False
) -> None:
    """Train every run that the sweep in DIR lacks; when there is none, those of the removal curves of its attributions."""
    sweep = to_go_on(folder, accept_changes)
    from orchestrator.cli.session import prepared, remove_watched, retrain_watched, settled
    from orchestrator.retraining.counts import finished

    with prepared(sweep := settled(sweep, ask=None if yes else ask), accept_changes) as store:
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
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Attribute these queries instead, from kept gradients; docs/gradients.md."),
    ] = None,
    estimator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --queries: by which estimator; the only one that keeps gradients."),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --queries: which measure; the one that it attributes.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="With --queries: so many examples of each end of every query (10).")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="With --queries: what they are called in the sweep; the file's name.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="With --queries: write the strongest examples there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute the attributions of the sweep in DIR from its finished runs; with --queries those of new queries."""
    given = {"--estimator": estimator, "--measure": measure, "--top": top, "--name": name, "--csv": csv}
    if queries is None:
        named = [option for option, value in {**given, "--json": as_json or None}.items() if value is not None]
        if named:
            raise ConfigError(f"{named[0]} goes with --queries FILE")
    elif again:
        raise ConfigError("--again computes the sweep's own attributions: leave it out with --queries")
    sweep = to_go_on(folder, accept_changes)
    from orchestrator.cli.session import attribute_watched, say_missing
    from orchestrator.store.run_store import RunStore
    from orchestrator.sweeps.identity import accept_edit

    with RunStore.open(sweep.paths, write=True) as store:
        if accept_changes:
            accept_edit(sweep, store)
        say_missing(sweep)
        if queries is not None:
            _attribute_new(sweep, store, queries, given, accept_changes, as_json)
            return
        failed = attribute_watched(sweep, store, again, accept_changes=accept_changes)
    if failed:
        raise typer.Exit(1)


def _attribute_new(
    sweep: Sweep, store: RunStore, queries: Path, given: Mapping[str, Any], accept_changes: bool, as_json: bool
) -> None:
    """Attribute new queries, and print or write their strongest examples."""
    from orchestrator.cli.new_queries import strongest_table
    from orchestrator.cli.session import before_new_queries
    from orchestrator.cli.tables import records
    from orchestrator.stages.new_queries import TOP, attribute_new_queries

    done = attribute_new_queries(
        sweep,
        store,
        queries,
        estimator=given["--estimator"],
        measure=given["--measure"],
        top=TOP if given["--top"] is None else given["--top"],
        name=given["--name"],
        before_task=before_new_queries(sweep, accept_changes=accept_changes),
    )
    if given["--csv"] is not None:
        done.top.to_csv(given["--csv"], index=False)
    if as_json:
        print_json(records(done.top))
    else:
        where = sweep.paths.query_attribution(done.queries, done.estimator)
        out.print(strongest_table(done, str(where)))


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
    sweep = looked_at(folder)
    from orchestrator.cli import tables
    from orchestrator.cli.session import say_absent, say_missing, say_unloadable, say_untrained
    from orchestrator.stages import score as scoring
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths, write=attributions is None) as store:
        say_missing(sweep)
        if attributions is None:
            say_absent(sweep)
            say_untrained(sweep)
        else:
            say_unloadable()
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
    sweep = looked_at(folder)
    from orchestrator.cli.session import say_absent, say_missing
    from orchestrator.stages import report as reporting
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths, write=True) as store:
        say_missing(sweep)
        say_absent(sweep)
        out.print(shown(reporting.report(sweep, store)), soft_wrap=True, highlight=False)


@app.command()
def sensitivity(
    folder: Folder,
    estimator: Annotated[
        str,
        typer.Option(
            "--estimator", metavar="NAME", help="One of the sweep's estimators, or any other with its defaults."
        ),
    ],
    option: Annotated[str, typer.Option("--option", metavar="NAME", help="Which of its options, a numeric one.")],
    values: Annotated[
        str | None,
        typer.Option("--values", metavar="A,B,...", help="Numbers to try; by default a range around the default."),
    ] = None,
    measure: Annotated[str | None, typer.Option(help="By default what the estimator attributes.")] = None,
    accept_changes: AcceptChanges = False,
    as_json: Json = False,
) -> None:
    """Show how the LDS goes with an option: a table and a figure in DIR/sensitivity, and nothing in the leaderboard.

    It looks at the runs that judge: a value that is chosen by it is not a fair one to report. `tune` chooses by fitting runs.
    """
    sweep = to_go_on(folder, accept_changes)
    from orchestrator.cli.session import look_watched
    from orchestrator.config.loading import parsed
    from orchestrator.stages.sensitivity import Request
    from orchestrator.store.run_store import RunStore
    from orchestrator.store.strict_json import jsonable

    asked = None if values is None else parsed(f"values=[{values}]")[1]
    with RunStore.open(sweep.paths, write=True) as store:
        found = look_watched(sweep, store, Request(estimator, option, asked, measure), accept_changes=accept_changes)
    if as_json:
        print_json(
            {"table": str(found.csv), "figure": str(found.svg), "values": jsonable(found.table.to_dict("records"))}
        )
    else:
        for path in (found.csv, found.svg):
            out.print(shown(path), soft_wrap=True, highlight=False)


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


def _print_suspects(sweep: Sweep) -> None:
    """Name the examples that look mislabelled, where it is known whose word to take."""
    from orchestrator.cli.leaderboard import suspects_table
    from orchestrator.scoring.suspects import named_suspects

    if found := named_suspects(sweep):
        out.print(suspects_table(found))
