"""Text that somebody else wrote is shown as text: a terminal gets no command of theirs."""

from __future__ import annotations

import ast
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.console import PlainConsole, shown
from orchestrator.cli.progress import Reporter
from orchestrator.stages.verify import KeptFindings
from orchestrator.store.damage import Damage
from orchestrator.store.lease import Lease
from orchestrator.sweeps.sweep import Sweep
from workers.runs import Failure, Outcome

HOSTILE = "good\x1b]0;title\x07\x1b[2J\r\x9b31m[bold red]\u202eevil[/]\nerror: another line\tend"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def printed(*things: Any, **options: Any) -> str:
    file = io.StringIO()
    PlainConsole(file=file, width=200, **options).print(*things, soft_wrap=True)
    return file.getvalue()


def test_shown_is_one_line_without_power() -> None:
    line = printed(shown(HOSTILE))
    assert not COMMANDS.search(line)
    assert line.count("\n") == 1
    assert line == (r"good\x1b]0;title\x07\x1b[2J\r\x9b31m[bold red]\u202eevil[/]\nerror: another line\tend" + "\n"), (
        "nothing is lost, and no markup obeyed"
    )


def test_what_was_forgotten_is_kept_from_the_terminal_and_richs_own_colours_are_not() -> None:
    line = printed("[red]red[/] " + HOSTILE.replace("[/]", ""), force_terminal=True, color_system="standard")
    assert "\x1b[31mred" in line
    assert "\x1b]0" not in line
    assert not COMMANDS.search(re.sub(r"\x1b\[[\d;]*m", "", line))


def test_bars_are_drawn_still() -> None:
    file = io.StringIO()
    reporter = Reporter(PlainConsole(file=file, force_terminal=True, width=100), {"fit": 3})
    reporter.open()
    reporter.add("fit", 3, 0)
    reporter.close()
    assert "3/3" in file.getvalue()


def test_nobody_else_in_the_command_line_escapes_text() -> None:
    folder = Path(__file__).parents[3] / "orchestrator"
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in {"rich.markup", "rich.console"}
        if {"escape", "Console"} & {one.name for one in node.names}
    ]
    assert sorted(set(found)) == ["cli/console.py", "cli/progress.py", "cli/session.py"]


@pytest.fixture
def strange(game: dict[str, Any], make_sweep: Any) -> Sweep:
    """A sweep whose failed run, and whoever writes it, say what no terminal should obey."""
    game["designs"] = {"fit": {"kind": "subsets", "alpha": 0.5, "subsets": 4}}
    sweep: Sweep = make_sweep(game)
    from orchestrator.stages.plan import prepare

    with prepare(sweep) as store:
        failure = Failure("Key\x1b[2JError", HOSTILE, f"Traceback\n{HOSTILE}")
        store.commit("fit", 0, [Outcome(0, failure=failure)], worker="w", started=1.0, seconds=1.0)
    return sweep


def test_a_strangers_sweep_in_a_terminal(strange: Sweep, command: Any) -> None:
    lease = Lease(strange.paths)
    try:
        said = strange.paths.lease.read_text().replace('"host": "', '"host": "\\u001b[2J\\n[red]').ljust(4096)
        strange.paths.lease.write_text(said)
        for arguments in (("status",), ("verify",)):
            ended = command(*arguments, strange.paths.root)
            assert not COMMANDS.search(ended.out + ended.err), arguments
        assert r"\x1b[2J\n[red]" in command("status", strange.paths.root).out.replace("\n", "")
    finally:
        lease.release()
    ended = command("status", strange.paths.root)
    assert not any(line.startswith("error: another line") for line in ended.out.splitlines())
    path = shutil.move(strange.paths.root, strange.paths.root.with_name("a\x1b[2J[red]b"))
    for arguments in (("status", path), ("status", f"{path}x"), ("report", path)):
        ended = command(*arguments)
        assert not COMMANDS.search(ended.out + ended.err), arguments
        assert "a\\x1b[2J[red]b" in (ended.out + ended.err).replace("\n", ""), arguments


def test_damage_is_shown_as_text(tmp_path: Path) -> None:
    from orchestrator.cli import tables

    damage = Damage("fit", 0, (0,), tmp_path / "\x1b[2J", "outputs", "missing")
    assert not COMMANDS.search(printed(tables.verification({}, [damage], [], {}, KeptFindings((), ()))))
