"""Forty runs on twelve examples and three queries, in the layout of every format."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from orchestrator.cli import main

M, N, T = 40, 12, 3


@dataclass(frozen=True)
class Made:
    """What the sources were written from."""

    masks: NDArray[np.bool_]
    outputs: NDArray[np.float32]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def made() -> Made:
    """Linear outputs with a little noise; all subsets differ."""
    rng = np.random.default_rng(0)
    drawn = {rng.permutation(N)[: N // 2].tobytes(): None for _ in range(4 * M)}
    masks = np.unique(np.array([np.isin(np.arange(N), np.frombuffer(one, np.int64)) for one in drawn]), axis=0)
    masks = masks[rng.permutation(len(masks))[:M]]
    return Made(masks, (masks @ rng.normal(size=(N, T)) + 0.05 * rng.normal(size=(M, T))).astype(np.float32))


def write_memmaps(folder: Path, made: Made) -> list[object]:
    folder.mkdir()
    np.save(folder / "masks.npy", made.masks)
    np.save(folder / "val_margins.npy", made.outputs)
    np.save(folder / "train_margins.npy", np.zeros((len(made.masks), N)))
    np.save(folder / "_completed.npy", np.ones(len(made.masks), bool))
    return ["--fit", folder, "--outputs", "val_margins"]


def write_pair(folder: Path, made: Made) -> list[object]:
    folder.mkdir()
    np.save(folder / "masks.npy", made.masks.astype(np.uint8))
    np.save(folder / "outputs.npy", made.outputs.astype(np.float64))
    return ["--fit", folder / "masks.npy"]


def write_tensors(folder: Path, made: Made) -> list[object]:
    folder.mkdir()
    torch.save(torch.from_numpy(made.masks), folder / "masks.pt")
    torch.save(torch.from_numpy(made.outputs), folder / "margins.pt")
    return ["--fit", folder]


def write_dattri(folder: Path, made: Made) -> list[object]:
    folder.mkdir()
    for number, mask in enumerate(made.masks):
        (folder / str(number)).mkdir()
        chosen = np.random.default_rng(number).permutation(np.flatnonzero(mask))
        (folder / str(number) / "indices.txt").write_text("\n".join(map(str, chosen)))
    (folder / "metadata.yml").write_text(f"mode: lds\ndata_length: {N}\nnum_subsets: {len(made.masks)}\n")
    np.save(folder / "losses.npy", made.outputs)
    return ["--fit", folder]


def write_pairs(folder: Path, made: Made) -> list[object]:
    folder.mkdir()
    run, example = np.nonzero(made.masks)
    shuffled = np.random.default_rng(1).permutation(len(run))
    pd.DataFrame({"run": run + 7, "example": example}).iloc[shuffled].to_parquet(folder / "pairs.parquet")
    queries = np.tile(np.arange(T), len(made.masks))
    long = pd.DataFrame(
        {"run": np.arange(len(made.masks)).repeat(T) + 7, "query": queries, "value": made.outputs.ravel()}
    )
    long.sample(frac=1, random_state=0).to_parquet(folder / "outputs.parquet")
    return ["--fit", folder / "pairs.parquet", "--outputs", "outputs.parquet", "--n", N]


WRITERS: dict[str, Callable[[Path, Made], list[object]]] = {
    "memmaps": write_memmaps,
    "pair": write_pair,
    "tensors": write_tensors,
    "dattri": write_dattri,
    "pairs": write_pairs,
}


@pytest.fixture(params=list(WRITERS))
def source(request: pytest.FixtureRequest, tmp_path: Path, made: Made) -> list[object]:
    """The options that name the runs, in each of the formats."""
    return WRITERS[request.param](tmp_path / request.param, made)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., list[object]]:
    """write(format, made, folder="source") -> the options that name the runs."""
    return lambda format, made, folder="source": WRITERS[format](tmp_path / folder, made)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run a command line in this process, as the console script does."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["counterfactory", *map(str, arguments)])
        try:
            main.main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(command: Callable[..., Ended]) -> Callable[..., str]:
    """Run a command that must end as a user's mistake does, and return its one line."""

    def run(*arguments: object) -> str:
        ended = command(*arguments)
        assert ended.code == 2, ended
        assert ended.out == ""
        assert ended.err.count("\n") == 1, ended.err
        return ended.err.rstrip("\n")

    return run
