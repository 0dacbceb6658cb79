"""Tables for the terminal: what a stage returned, as a person reads it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from orchestrator.cli.console import shown
from orchestrator.cli.leaderboard import leaderboard
from orchestrator.store.strict_json import jsonable
from workers.wording import duration

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.forecast.cost import Forecast
    from orchestrator.stages.import_runs import ImportSummary
    from orchestrator.stages.plan import Planned
    from orchestrator.stages.status import Status
    from orchestrator.stages.verify import KeptFindings, Rerun
    from orchestrator.store.damage import Damage
    from orchestrator.sweeps.sweep import Sweep

__all__ = [
    "damage_line",
    "import_table",
    "leaderboard",
    "plan_table",
    "records",
    "rows",
    "status_view",
    "verification",
]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as JSON records."""
    return [jsonable(record) for record in table.to_dict(orient="records")]


def rows(items: Iterable[Any]) -> list[dict[str, Any]]:
    """Return dataclasses as JSON records."""
    return [jsonable(asdict(item)) for item in items]


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def import_table(imported: Sequence[ImportSummary]) -> RenderableType:
    """Return what was imported, a row a design, what was left out of it, and what was done to it."""
    table = Table(title="Imported runs", title_justify="left", header_style="bold")
    table.add_column("design", no_wrap=True)
    for name in ("subsets", "runs", "not finite"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from")
    for one in imported:
        source = f"{one.source}; {one.left_out}" if one.left_out else one.source
        table.add_row(shown(one.design), f"{one.subsets:,}", f"{one.runs:,}", f"{one.not_finite:,}", shown(source))
    done = {one.done: [other.design for other in imported if other.done == one.done] for one in imported if one.done}
    return Group(table, *(shown(f"{', '.join(designs)}: {what}") for what, designs in done.items()))


def forecast_line(forecast: Forecast) -> str:
    """Return what a sweep is expected to take, in one line."""
    runs = sum(design.runs for design in forecast.designs)
    why = f", the first with {forecast.failure}" if forecast.failure else ""
    failed = f"; {forecast.failed} trial runs failed{why}" if forecast.failed else ""
    middle, low, high = map(duration, forecast.total)
    unknown = any(one.unknown for one in forecast.attributions or ())
    whole = f"at least {middle}" if unknown else f"{middle} ({low} to {high})"
    without = f" without {_listed(forecast.left_out)}" if forecast.left_out else ""
    parts = [f"Ray's start {duration(forecast.ray_start)}", f"trainings {duration(forecast.seconds)}"]
    if forecast.attributions:
        known = duration(sum(one.seconds for one in forecast.attributions))
        parts.append(f"attributions {'at least ' if unknown else ''}{known}")
    parts += [f"{one.stage} {duration(one.seconds)}" for one in forecast.stages if not one.unknown]
    return (
        f"forecast: {runs:,} runs, {whole}{without}, with {forecast.slots} packs at once: about "
        f"{', '.join(parts)}; up to {forecast.bytes / 1e6:,.1f} MB{failed}"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _forecast_notes(forecast: Forecast, measure: str) -> list[str]:
    """Return what a person must know to read a forecast."""
    lines = []
    if forecast.attributions:
        times = (
            f"{one.estimator} more than {duration(one.seconds)} ({one.unknown})"
            if one.unknown
            else f"{one.estimator} {duration(one.seconds)}"
            for one in forecast.attributions
        )
        lines.append(f"attributions: {', '.join(times)}")
    reasons: dict[str, list[str]] = {}
    for stage in forecast.stages:
        if stage.unknown:
            reasons.setdefault(stage.unknown, []).append(stage.stage)
    lines += [f"{_listed(stages)}: {why}" for why, stages in reasons.items()]
    if not forecast.seeds_matter:
        lines.append(
            "seeds change nothing: two trainings on one subset with different seeds gave the same outputs; a noise ceiling is "
            "1.000 then, and more than one seed a subset tells nothing new"
        )
    lines.append(
        f"error to expect, a standard error in units of {measure}: of one query, that of one attribution, an example's effect on "
        "that query; of the utility, that of its effect on the mean over the queries, which `stop` watches"
    )
    return lines


def plan_table(sweep: Sweep, planned: list[Planned], forecast: Forecast | None) -> RenderableType:
    """Return what would be trained, and what it would take."""
    expected = {design.design: design for design in forecast.designs} if forecast else {}
    table = Table(title=f"{shown(sweep.config.name)}: n = {sweep.task.n:,}, t = {sweep.t:,}", title_justify="left")
    for name in ("design", "kind", "purpose", "order"):
        table.add_column(name)
    errors = ("error of one query", "error of the utility")
    for name in ("subsets", "seeds", "runs", "packs", "worker time", *errors, "on disk, at most"):
        table.add_column(name, justify="right")
    for one in planned:
        foreseen = expected.get(one.design)
        table.add_row(
            shown(one.design),
            shown(one.kind),
            shown(one.purpose),
            one.order,
            f"{one.subsets:,}",
            str(one.seeds),
            f"{one.runs:,}",
            f"{one.packs:,}",
            duration(foreseen.seconds) if foreseen else "-",
            _number(foreseen.standard_error if foreseen else math.nan),
            _number(foreseen.utility_error if foreseen else math.nan),
            f"{one.bytes / 1e6:,.1f} MB",
        )
    total = sum(one.runs for one in planned)
    lines = [f"{total:,} runs in all; estimators: {shown(', '.join(sweep.config.estimators)) or 'none'}"]
    if forecast:
        lines.append(shown(forecast_line(forecast)))
        lines += map(shown, _forecast_notes(forecast, sweep.config.measures[0]))
    return Group(table, *lines)


def status_view(status: Status) -> RenderableType:
    """Return how a sweep stands."""
    table = Table(title=shown(status.folder), title_justify="left")
    table.add_column("design")
    for name in ("done", "failed", "pending"):
        table.add_column(name, justify="right")
    for name, counts in status.designs.items():
        table.add_row(shown(name), *(f"{counts[key]:,}" for key in ("done", "failed", "pending")))
    lines = [shown(str(one)) for one in status.stopped]
    if status.running:
        who = shown(f"process {status.running['pid']} on {status.running['host']}")
        rate = f"{status.rate:.1f} runs/s" if status.rate else "nothing finished lately"
        left = f", {duration(status.seconds_left)} left" if status.seconds_left else ""
        lines.append(f"running: {who}, {rate}{left}")
    elif status.pending:
        lines.append("not running; `counterfactory retrain DIR` goes on")
    lines += [f"[red]damaged:[/] {shown(line)}" for line in status.damages[:10]]
    if len(status.damages) > 10:
        lines.append(f"... and {len(status.damages) - 10} other records (--json lists all)")
    lines += [f"failure: {shown(line)}" for line in status.failures[:10]]
    if len(status.failures) > 10:
        lines.append(f"... and {len(status.failures) - 10} other failures (--json lists all)")
    if status.attributions:
        lines.append(f"attributions: {shown(', '.join(status.attributions))}")
    lines += [f"not here: {shown(name)}: {shown(why)}" for name, why in status.absent.items()]
    lines += [
        f"stale: {shown(name)}, {shown(why)}; `counterfactory attribute DIR` computes it anew"
        for name, why in status.stale.items()
    ]
    lines += [
        f"stale scores: {shown(name)}, {shown(why)}; `counterfactory score DIR` takes them anew"
        for name, why in status.stale_scores.items()
    ]
    return Group(table, *lines)


def damage_line(damage: Damage) -> str:
    """Return one damage in one line."""
    listed = ", ".join(str(row) for row in list(damage.rows)[:5]) + (", ..." if len(damage.rows) > 5 else "")
    return f"{damage.design} pack {damage.pack} ({damage.what}; rows {listed}): {damage.path}"


def verification(
    counts: Mapping[str, tuple[int, int, int]],
    damages: list[Damage],
    reruns: list[Rerun],
    changes: Mapping[str, tuple[Any, Any]],
    kept: KeptFindings,
) -> RenderableType:
    """Return what `verify` found."""
    done = sum(count[0] for count in counts.values())
    lines = [f"[red]damaged:[/] {shown(str(one))}" for one in kept.damages]
    lines += [f"[yellow]out of date:[/] {shown(line)}" for line in kept.outdated]
    lines += [f"[red]damaged:[/] {shown(damage_line(damage))}" for damage in damages]
    lines.append(
        f"{len(damages)} places damaged; `counterfactory run` or `retrain` trains them again"
        if damages
        else f"[green]all {done:,} finished rows agree with the ledger[/]"
    )
    for one in reruns:
        verdict = "[green]equal, bit by bit[/]" if one.equal else f"[red]differs by up to {one.difference:.3g}[/]"
        lines.append(f"trained again: {shown(one.design)} row {one.row}: {verdict}")
    if not all(one.equal for one in reruns):
        for key, (then, now) in changes.items():
            lines.append(shown(f"made with {key} {then}, here it is {now}: bits may differ for that reason"))
    return Group(*lines)
