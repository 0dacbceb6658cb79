"""diffusion-influence's retrainings: `sub_idx_<k>.csv` says what subset k was, the folder's name which seed a run had.

retrain/sub_idx_<k>.csv                     kept examples, one a line, numbered as the whole data set
idx_train.csv, there or one folder up       the examples that make the training set; without it, all: then give --n
subidx<k>-<seed>/measurements.npy           (t,) outputs, in the folder that --outputs names, or in the source
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.imports.files import open_array
from orchestrator.imports.foreign_runs import ForeignRuns, as_seeds
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import ConfigError, DataError

SUBSET, RUN = re.compile(r"sub_idx_(\d+)\.csv"), re.compile(r"subidx(\d+)-(\d+)")
TRAIN, MEASUREMENTS = "idx_train.csv", "measurements.npy"


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.is_dir() and bool(_subset_files(source))


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of every subset and seed that was measured. Raises DataError, ConfigError."""
    files = _subset_files(source)
    folder = next(iter(files.values())).parent
    train = next((path for path in (folder / TRAIN, folder.parent / TRAIN) if path.is_file()), None)
    if train is not None:
        examples = _numbers(train)
    elif n is not None:
        examples = np.arange(n)
    else:
        raise ConfigError(f"{source}: has no {TRAIN} that says which examples there were; give --n")
    numbers = sorted(files)
    lists = [_places(files[number], examples) for number in numbers]
    masks = SparseMasks.of(lists, len(examples), str(folder))
    runs = _measured(source, outputs, numbers)
    measured = [open_array(path) for _, _, path in runs]
    shapes = {one.shape for one in measured}
    if len(shapes) > 1 or measured[0].ndim != 1:
        raise DataError(f"{source}: measurements have the shapes {sorted(shapes)}, expected one, (queries,)")
    without = len(numbers) - len({subset for subset, _, _ in runs})
    return ForeignRuns(
        "diffusion-influence retrainings",
        str(source),
        runs[0][2],
        masks,
        np.stack(measured),
        np.array([numbers.index(subset) for subset, _, _ in runs]),
        np.arange(len(runs)),
        f"{without:,} of {len(numbers):,} subsets were not measured" if without else "",
        as_seeds(np.array([seed for _, seed, _ in runs]), str(source)),
        measure="loss",
    )


def _subset_files(source: Path) -> dict[int, Path]:
    """Return the files of subsets in the source, else in its folder `retrain`, by their number."""
    for folder in (source, source / "retrain"):
        found = {int(name[1]): path for path in folder.glob("*.csv") if (name := SUBSET.fullmatch(path.name))}
        if found:
            return found
    return {}


def _measured(source: Path, outputs: str | None, numbers: list[int]) -> list[tuple[int, int, Path]]:
    """Return subset, seed and file of every run, in their order."""
    places = [source] if outputs is None else [source / outputs, Path(outputs)]
    named = [(name, path) for place in places for path in sorted(place.glob(f"*/{MEASUREMENTS}"))
             if (name := RUN.fullmatch(path.parent.name))]  # fmt: skip
    runs = sorted((int(name[1]), int(name[2]), path) for name, path in named)
    if not runs:
        where = " or ".join(map(str, places))
        raise DataError(
            f"{source}: found no subidx<k>-<seed>/{MEASUREMENTS} in {where}; name their folder with --outputs"
        )
    unknown = sorted({subset for subset, _, _ in runs} - set(numbers))
    if unknown:
        raise DataError(f"{source}: there are measurements of subset {unknown[0]}, and no sub_idx_{unknown[0]}.csv")
    return runs


def _numbers(path: Path) -> NDArray[np.int64]:
    try:
        return np.array(path.read_text(encoding="utf-8").split(), dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected one index a line: {error}") from error


def _places(path: Path, examples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where in the training set the examples of a subset stand. Raises DataError for one that is not in it."""
    found, order = _numbers(path), np.argsort(examples)
    places = np.searchsorted(examples, found, sorter=order)
    inside = places < len(examples)
    inside[inside] = examples[order[places[inside]]] == found[inside]
    if not inside.all():
        raise DataError(
            f"{path}: {int((~inside).sum())} of its {len(found)} examples are not among the {len(examples)} there are, "
            f"such as {found[~inside][0]}: is n right?"
        )
    return order[places]
