"""How long a person waits for the command line, and how much memory it takes: every command in a process of its own.

    python benchmarks/startup.py                         help, mistakes, what needs no sweep
    python benchmarks/startup.py --sweep runs/digits     also status, export and verify of that sweep; nothing is written there
    python benchmarks/startup.py --against ../former     another checkout beside it, with ratios

Of `--repeats` calls, which alternate between the checkouts, the median is shown: seconds on the wall from start to end, seconds
of processor time, and the peak of the resident memory. Both checkouts run under this Python.
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

HERE = Path(__file__).resolve().parent.parent
ENTRY = (
    "try:\n    from orchestrator.cli.main import main\n"
    "except ModuleNotFoundError:\n    from orchestrator.cli import main\nmain()\n"
)
"""Calls the command line of a checkout; it was one module once."""


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    """On the wall."""
    processor: float
    """Seconds of all cores together."""
    megabytes: float
    """Peak of the resident memory."""


def call(checkout: Path, arguments: Sequence[str], folder: Path) -> Cost:
    """Run one command of a checkout to its end, in a folder of its own.

    A process between counts it: the operating system tells the peak of all children that a process ever had.
    """
    pipe, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(pipe)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", ENTRY, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(end, f"{seconds} {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}".encode())
        os._exit(0)
    os.close(end)
    with os.fdopen(pipe) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return Cost(*map(float, told.split()))


def commands(sweep: Path | None, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the commands that are timed, by what they are called in the table."""
    asked: dict[str, tuple[str, ...]] = {
        "--help": ("--help",),
        "run --help": ("run", "--help"),
        "init": ("init",),
        "configs": ("configs",),
        "schema": ("schema",),
        "unknown command": ("rum",),
        "unknown file": ("run", "digts"),
        "unknown key": ("run", "digits", "desings={}"),
        "wrong value": ("run", "digits", "seed=x"),
        "unknown design": ("run", "digits", "designs.fit.kind=subset"),
        "unknown estimator": ("run", "digits", "estimators.trakk={}"),
        "unknown option": ("run", "digits", "estimators.datamodel.foldz=3"),
    }
    if sweep is not None:
        at = str(sweep.resolve())
        asked |= {
            "status": ("status", at),
            "export .npz": ("export", at, "--to", str(folder / "runs.npz")),
            "export .parquet": ("export", at, "--to", str(folder / "runs.parquet")),
            "verify": ("verify", at),
        }
    return asked


def measure(checkouts: Sequence[Path], arguments: Sequence[str], folder: Path, repeats: int) -> list[Cost]:
    """Return the median cost of a command in every checkout."""
    costs: list[list[Cost]] = [[] for _ in checkouts]
    for _ in range(repeats):
        for place, checkout in enumerate(checkouts):
            (folder / "sweep.yaml").unlink(missing_ok=True)  # what `init` wrote
            costs[place].append(call(checkout, arguments, folder))
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
    checkouts = [HERE] if given.against is None else [given.against.resolve(), HERE]
    width = 30 if len(checkouts) == 1 else 66
    print(f"{'':18}{'seconds':>{width // 3}}{'processor s':>{width // 3}}{'peak MB':>{width // 3}}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, arguments in commands(given.sweep, folder).items():
            costs = measure(checkouts, arguments, folder, given.repeats)
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
