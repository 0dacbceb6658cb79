"""The commands that look at a sweep, and write no more than a copy of what it holds: status, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.console import out, print_json, shown
from orchestrator.cli.parameters import AcceptChanges, Folder, Json, looked_at

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Show how the sweep in DIR stands, also while it is running elsewhere."""
    sweep = looked_at(folder)
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
    """Check every row against its hash, what is kept for queries against its checksums, and some runs by training them again;
    exit code 1 if anything disagrees."""
    sweep = looked_at(folder)
    from orchestrator.cli import tables
    from orchestrator.retraining.counts import finished
    from orchestrator.stages import verify as verifying
    from orchestrator.store.run_store import RunStore

    if rerun:
        from orchestrator.cli.session import announce

        announce(sweep)
    with RunStore.open(sweep.paths) as store:
        damages = verifying.check_rows(store)
        kept = verifying.check_kept(sweep, store)
        sound = not damages  # what is damaged has to be put right first
        reruns = verifying.rerun(sweep, store, rerun, accept_changes=accept_changes) if rerun and sound else []
        changes = verifying.machine_changes(sweep) if rerun and sound else {}
        counts = finished(sweep, store) if sound else {}
    if as_json:
        found = {"damages": tables.rows(damages), "kept": tables.rows(kept.damages), "outdated": list(kept.outdated)}
        print_json({**found, "reruns": tables.rows(reruns), "machine_changes": changes})
    else:
        out.print(tables.verification(counts, damages, reruns, changes, kept))
    if damages or kept.damages or not all(one.equal for one in reruns):
        raise typer.Exit(1)


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
    sweep = looked_at(folder)
    from orchestrator.stages import export as exporting
    from orchestrator.store.run_store import RunStore

    with RunStore.open(sweep.paths) as store:
        done = exporting.export(exporting.Request(sweep, store, to, design, measure, mean), name)
    out.print(shown(f"{to}: {done.count:,} {done.unit}"), soft_wrap=True, highlight=False)
    for line in done.said:
        out.print(shown(line), soft_wrap=True, highlight=False)
