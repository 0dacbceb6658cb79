"""The command line: `counterfactory COMMAND`. Thin: it parses, calls a stage, shows what came of it.

Every command imports what it needs when it is called: help and mistakes are answered at once, and looking at a sweep imports
neither PyTorch nor Ray.
"""

from __future__ import annotations

import signal
import sys

import typer

from orchestrator.cli import catalog, looking, making
from orchestrator.cli.console import err, shown
from workers.errors import CounterfactoryError, UserError

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
for commands in (making, looking, catalog):
    app.add_typer(commands.app)


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
