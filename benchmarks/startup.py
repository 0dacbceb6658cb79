"""How long a person waits for the command line, and how much memory it takes: every command in a process of its own.

    python benchmarks/startup.py                         help, mistakes, what needs no sweep
    python benchmarks/startup.py --sweep runs/digits     also status, export and verify of that sweep; nothing is written there
    python benchmarks/startup.py --against ../former     another checkout beside it, with ratios

Of `--repeats` calls, which alternate between the checkouts, the median is shown: seconds on the wall from start to end, seconds
of processor time, and the peak of the resident memory. Both checkouts run under this Python. A command that does not end as it
should (a mistake with exit status 2, everything else with 0) stops the benchmark: a crash is quick, too.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MISTAKE = 2
"""Exit status of a user's mistake."""
HERE = Path(__file__).resolve().parent.parent
ENTRY = (
    "try:\n    from orchestrator.cli.main import main\n"
    "except ModuleNotFoundError:\n    from orchestrator.cli import main\nmain()\n"
)
"""Calls the command line of a checkout, which is a module or a package."""


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    """On the wall."""
    processor: float
    """Seconds of all cores together."""
    megabytes: float
    """Peak of the resident memory."""


@dataclass(frozen=True)
class Command:
    """One command, and how it should end."""

    arguments: tuple[str, ...]
    status: int = 0
    """Its exit status."""


def call(checkout: Path, command: Command, folder: Path) -> Cost:
    """Run one command of a checkout to its end, in a folder of its own. Raises SystemExit where that is not as it should be.

    A process between counts it: the operating system tells the peak of all children that a process ever had.
    """
    pipe, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(pipe)
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, *command.arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        numbers = (seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, done.returncode)
        os.write(end, " ".join(map(str, numbers)).encode())
        os._exit(0)
    os.close(end)
    with os.fdopen(pipe) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    *cost, status = told.split() or ("no answer",)
    if status != str(command.status):
        what = " ".join(command.arguments)
        raise SystemExit(f"{checkout}: `counterfactory {what}` ended with {status}, expected {command.status}")
    return Cost(*map(float, cost))


def commands(sweep: Path | None, folder: Path) -> dict[str, Command]:
    """Return the commands that are timed, by what they are called in the table."""
    asked = {
        "--help": Command(("--help",)),
        "run --help": Command(("run", "--help")),
        "init": Command(("init",)),
        "configs": Command(("configs",)),
        "schema": Command(("schema",)),
        "unknown command": Command(("rum",), MISTAKE),
        "unknown file": Command(("run", "digts"), MISTAKE),
        "unknown key": Command(("run", "digits", "desings={}"), MISTAKE),
        "wrong value": Command(("run", "digits", "seed=x"), MISTAKE),
        "unknown design": Command(("run", "digits", "designs.fit.kind=subset"), MISTAKE),
        "unknown estimator": Command(("run", "digits", "estimators.trakk={}"), MISTAKE),
        "unknown option": Command(("run", "digits", "estimators.datamodel.foldz=3"), MISTAKE),
    }
    if sweep is not None:
        at = str(sweep.resolve())
        asked |= {
            "status": Command(("status", at)),
            "export .npz": Command(("export", at, "--to", str(folder / "runs.npz"))),
            "export .parquet": Command(("export", at, "--to", str(folder / "runs.parquet"))),
            "verify": Command(("verify", at)),
        }
    return asked


def measure(checkouts: Sequence[Path], command: Command, folder: Path, repeats: int) -> list[Cost]:
    """Return the median cost of a command in every checkout."""
    costs: list[list[Cost]] = [[] for _ in checkouts]
    for _ in range(repeats):
        for place, checkout in enumerate(checkouts):
            (folder / "sweep.yaml").unlink(missing_ok=True)  # what `init` wrote
            costs[place].append(call(checkout, command, folder))
    return [
        Cost(
            *(statistics.median(getattr(one, field) for one in each) for field in ("seconds", "processor", "megabytes"))
        )
        for each in costs
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, help="a sweep's folder, to be looked at")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.against is not None and not (given.against / "orchestrator").is_dir():
        parser.error(f"--against {given.against} is no checkout of this project: it has no folder orchestrator")
    checkouts = [HERE] if given.against is None else [given.against.resolve(), HERE]
    width = 30 if len(checkouts) == 1 else 66
    print(f"{'':18}{'seconds':>{width // 3}}{'processor s':>{width // 3}}{'peak MB':>{width // 3}}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, command in commands(given.sweep, folder).items():
            costs = measure(checkouts, command, folder, given.repeats)
            print(
                f"{title:18}" + "".join(_cell(costs, field) for field in ("seconds", "processor", "megabytes")),
                flush=True,
            )


def _cell(costs: Sequence[Cost], field: str) -> str:
    """Return one number, or before, after and how many times less it is."""
    digits = 0 if field == "megabytes" else 2
    values = [getattr(one, field) for one in costs]
    if len(values) == 1:
        return f"{values[0]:>10.{digits}f}"
    before, after = values
    return f"{before:>8.{digits}f}{after:>7.{digits}f}{f'({before / after:.1f}x)':>7}"


if __name__ == "__main__":
    main()
