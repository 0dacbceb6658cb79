"""Examples that weigh what a file or an attribution says, from the configuration to the store and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator import open_sweep
from orchestrator.config.schema import Config
from orchestrator.retraining.jobs import jobs_of
from orchestrator.stages.export import export
from orchestrator.stages.export.request import Request
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.verify import check_rows, rerun
from orchestrator.store.attributions import Attributes, StoredAttribution, write_attribution
from orchestrator.store.manifest import FORMAT_VERSION, read_manifest
from orchestrator.store.metadata import read_attributes, write_attributes
from orchestrator.store.paths import SweepPaths
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, StoreError

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
N, ROWS = 60, 3


@pytest.fixture
def given(tmp_path: Path) -> np.ndarray:
    """Weights (3, 60) in weights.npy, a few of them 0."""
    weights = np.random.default_rng(0).random((ROWS, N)).astype(np.float32) * 2
    weights[:, :5] = 0
    np.save(tmp_path / "weights.npy", weights)
    return weights


@pytest.fixture
def weighted(tiny: Raw) -> Raw:
    """The tiny sweep with a design of weights, in shared order, two seeds a row."""
    tiny["designs"] = {
        "reference": {"kind": "full", "seeds": 2, "checkpoints": "none"},
        "tilted": {"kind": "weights", "file": "weights.npy", "seeds": 2, "order": "shared"},
    }
    tiny["estimators"], tiny["scores"] = {}, {}
    return tiny


def test_rows_are_those_of_the_file(make_sweep: Make, weighted: Raw, given: np.ndarray) -> None:
    plan = make_sweep(weighted).plans["tilted"]
    rows = plan.rows(0, plan.runs)
    assert plan.runs == 2 * ROWS
    assert rows.weights is not None
    assert np.array_equal(rows.weights, given.repeat(2, axis=0))
    assert np.array_equal(rows.masks, given.repeat(2, axis=0) != 0)


def test_one_row_is_a_design_of_one_subset(make_sweep: Make, weighted: Raw, given: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", given[0])
    assert make_sweep(weighted).plans["tilted"].runs == 2


@pytest.mark.parametrize("order", ["own", "shared"])
def test_runs_bring_the_weights_of_their_subset(make_sweep: Make, weighted: Raw, given: np.ndarray, order: str) -> None:
    weighted["designs"]["tilted"]["order"] = order
    sweep = make_sweep(weighted)
    with prepare(sweep) as store:
        runs = {
            run.row: run for job in jobs_of(sweep, store, lambda _: False) for run in job.runs if job.design == "tilted"
        }
    for row, run in runs.items():
        assert run.order == order
        assert np.array_equal(run.subset, np.flatnonzero(given[row // 2]))
        assert run.weights is not None
        assert np.array_equal(run.weights, given[row // 2][run.subset])


def test_the_store_keeps_them_and_everybody_who_reads_it_sees_them(
    make_sweep: Make, weighted: Raw, given: np.ndarray, inline_pool: Any, tmp_path: Path
) -> None:
    sweep = make_sweep(weighted)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert check_rows(store) == []
        assert all(one.equal for one in rerun(sweep, store, 8, pool=inline_pool(sweep)))
        kept, none = store.weights("tilted"), store.weights("reference")
        export(Request(sweep, store, tmp_path / "all.npz"))
        export(Request(sweep, store, tmp_path / "all.parquet"))
    expected = given.repeat(2, axis=0)
    assert none is None
    assert np.array_equal(kept, expected)
    with np.load(tmp_path / "all.npz") as arrays:
        assert np.array_equal(arrays["tilted/weights"], expected)
        assert "reference/weights" not in arrays
    table = pq.read_table(tmp_path / "all.parquet").to_pylist()
    said = {(row["design"], row["row"]): row for row in table}
    assert said["reference", 0]["weights"] == [1.0] * N
    assert said["tilted", 3]["weights"] == given[1][given[1] != 0].tolist()
    runs = open_sweep(sweep.paths.root).runs("tilted")
    assert np.array_equal(runs["weights"].values, expected)
    assert runs["weights"].dims == ("run", "example")


def test_weights_that_were_changed_on_the_disk_are_found(
    make_sweep: Make, weighted: Raw, given: np.ndarray, inline_pool: Any
) -> None:
    sweep = make_sweep(weighted)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
    place = sweep.paths.plan_array("tilted", "weights")
    (chunk,) = [file for file in place.iterdir() if file.name.startswith("c.")]
    with RunStore.open(sweep.paths, write=True) as store:
        array = store._designs["tilted"].planned.arrays["weights"]
        values = array.read(0).values.copy()
        values[0, 10] += 1
        (content,) = array.encode(0, values).values()
        chunk.write_bytes(content)
        assert {damage.what for damage in check_rows(store)} == {"masks"}
        with pytest.raises(StoreError, match="not what was planned"):
            store.weights("tilted")
        retrain(sweep, store, pool=inline_pool(sweep))
        assert check_rows(store) == []
        assert np.array_equal(store.weights("tilted"), given.repeat(2, axis=0))


def test_a_file_that_changed_since_is_refused(
    make_sweep: Make, weighted: Raw, given: np.ndarray, inline_pool: Any, tmp_path: Path
) -> None:
    prepare(make_sweep(weighted)).close()
    np.save(tmp_path / "weights.npy", given * 1.5)
    sweep = make_sweep(weighted)
    with (
        prepare(sweep) as store,
        pytest.raises(StoreError, match=r"designs\.tilted has other weights than when it was"),
    ):
        retrain(sweep, store, pool=inline_pool(sweep))


def test_a_store_of_the_first_format_is_read(make_sweep: Make, tiny: Raw) -> None:
    sweep = make_sweep(tiny)
    prepare(sweep).close()
    plain = read_attributes(sweep.paths.runs)
    assert plain["format_version"] == FORMAT_VERSION == 2
    plain["format_version"] = 1
    for design in plain["designs"]:
        del design["weighted"]
    write_attributes(sweep.paths.runs, plain)
    with RunStore.open(sweep.paths) as store:
        assert store.weights("fit") is None
        assert store.masks("fit").shape == (20, N)
        assert read_manifest(sweep.paths).format_version == 1


def test_a_step_along_an_attribution(make_sweep: Make, weighted: Raw, tmp_path: Path) -> None:
    tau = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32) * 0.1
    other = SweepPaths(tmp_path / "other")
    (tmp_path / "other").mkdir()
    write_attribution(other, "trak", StoredAttribution(tau, Attributes(estimator="trak", measure="margin")))
    said = {"sweep": "other", "estimator": "trak", "queries": [2, 0], "lr": 0.5}
    weighted["designs"]["tilted"] = {"kind": "weights", "attribution": said}
    plan = make_sweep(weighted).plans["tilted"]
    weights = plan.rows(0, 2).weights
    assert weights is not None
    np.testing.assert_allclose(weights, 1 - 0.5 * tau[:, [2, 0]].T, rtol=1e-6)
    for change, line in (
        ({"queries": [4]}, r"attribution\.queries: 4 is not a query of 'trak'; expected 0 to 3"),
        ({"estimator": "tark"}, r"attribution: .*tark"),
        ({"lr": 100.0}, r"attribution: example \d+ of row 0 weighs -[\d.]+, expected finite numbers of at least 0"),
    ):
        weighted["designs"]["tilted"] = {"kind": "weights", "attribution": {**said, **change}}
        with pytest.raises(ConfigError, match=rf"^designs\.tilted\.{line}") as told:
            _ = make_sweep(weighted).plans
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda w: -w, r"example 5 of row 0 weighs -[\d.]+, expected finite numbers of at least 0 \(165 are not\)"),
        (lambda w: np.where(np.arange(N) == 7, np.nan, w), r"example 7 of row 0 weighs nan, expected .* \(3 are not\)"),
        (lambda w: np.where(np.arange(N) == 7, np.inf, w), r"example 7 of row 0 weighs inf"),
        (lambda w: w * [[1], [0], [1]], r"row 1 has no weight above 0"),
        (lambda w: w[:, :-1], r".*weights.npy has shape \(3, 59\), expected \(60,\) or \(rows, 60\)"),
        (lambda w: w[None], r".*weights.npy has shape \(1, 3, 60\)"),
        (lambda w: w.astype(str), r".*weights.npy holds <U\d+, expected numbers"),
    ],
)
def test_what_are_no_weights_is_one_line(
    make_sweep: Make, weighted: Raw, given: np.ndarray, tmp_path: Path, spoil: Any, line: str
) -> None:
    np.save(tmp_path / "weights.npy", spoil(given))
    with pytest.raises(ConfigError, match=rf"^designs\.tilted\.file: {line}") as told:
        _ = make_sweep(weighted).plans
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"file": None}, "weights come from a `file` or from an `attribution`; give one of them"),
        ({"purpose": "score"}, "purpose: score needs subsets; scores know nothing of weights"),
    ],
)
def test_a_section_that_makes_no_sense(
    make_config: Callable[[Raw], Config], weighted: Raw, change: Raw, line: str
) -> None:
    weighted["designs"]["tilted"] |= change
    with pytest.raises(ConfigError, match=line):
        make_config(weighted)


def test_a_black_box_has_no_weights(make_sweep: Make, game: Raw, tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.ones(8))
    game["designs"] = {"tilted": {"kind": "weights", "file": "weights.npy"}}
    with pytest.raises(
        ConfigError, match=r"^designs\.tilted\.kind: weights needs a differentiable task; Game trains itself"
    ):
        _ = make_sweep(game).plans
