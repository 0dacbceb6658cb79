import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from estimators.lasso.collect import blocks_of
from estimators.lasso.cost import GIB, Machine, fit_cost, this_machine
from estimators.lasso.curve_cost import affordable_queries, curve_cost
from estimators.lasso.learning_curve import learning_curve
from estimators.lasso.regressor import fit_blocks
from estimators.lasso.settings import Settings
from workers.errors import ConfigError

SMALL = Machine("a test", 1, 1e12, 1e11, 2e9, 1e9, 2**30)
NODE_64 = Machine("one 64-core node, 512 GiB", 64, 2e13, 1.5e12, 6e10, 1e9, 512 * GIB)
"""Assumed: AVX-512 VNNI at a third of its peak, DDR5 at 250 GB/s for coordinate descent."""
GPU_80 = Machine("one GPU of 80 GiB", 0, 1e14, 8e12, 8e12, 2e9, 80 * GIB)
"""Assumed: an A100's int8 tensor cores at a third of their 312 T multiply-adds, float32 at 8 T multiply-adds."""


def peak_of(work: Callable[[], object]) -> int:
    """Return the most bytes that arrays took during the second call of `work`; the first one compiles."""
    work()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("m", "n", "t", "options"),
    [
        (600, 500, 20, {}),
        (400, 700, 10, {}),
        (900, 300, 150, {}),
        (300, 300, 10, {"folds": 3}),
        (600, 500, 20, {"bootstrap": 2}),
        (900, 300, 150, {"bootstrap": 2}),
        (300, 300, 10, {"folds": 3, "bootstrap": 2}),
        (500, 400, 20, {"penalty": "ridge"}),
        (500, 400, 100, {"penalty": "ridge", "bootstrap": 2}),
    ],
)
def test_memory_is_forecast_to_within_a_factor_of_two_and_not_too_low(problem_of, m, n, t, options):
    masks, outputs = problem_of(m, n, t, noise=10.0)
    settings = Settings(threads=1, **options)
    peak = peak_of(lambda: fit_blocks(lambda: blocks_of(masks, outputs), np.arange(m), settings, 0))
    expected = fit_cost(m, n, t, settings, SMALL).memory
    assert 0.5 * expected < peak < 1.1 * expected


@pytest.mark.parametrize(("m", "n", "t"), [(600, 500, 20), (900, 300, 150), (1500, 300, 30)])
def test_memory_of_a_learning_curve_is_forecast_likewise(problem_of, m, n, t):
    masks, outputs = problem_of(m, n, t, noise=10.0)
    settings = Settings(threads=1)
    peak = m * n + peak_of(lambda: learning_curve(masks, outputs, np.arange(m), settings, 0, resamples=5))
    expected = curve_cost(m, n, t, settings, SMALL).memory
    assert 0.5 * expected < peak < 1.1 * expected


def test_a_bootstrap_costs_a_pass_and_a_refit_a_resample():
    alone, with_it = (fit_cost(2000, 1000, 100, Settings(bootstrap=b), NODE_64) for b in (0, 50))
    assert with_it.bytes_read == 51 * alone.bytes_read
    assert with_it.gram_operations == 51 * alone.gram_operations
    assert with_it.cross_operations == 51 * alone.cross_operations
    assert with_it.seconds > 5 * alone.seconds
    cut = with_it.cut(8)
    assert (cut.block, cut.blocks, cut.passes) == (13, 8, 1 + 8 * 51)
    assert cut.gram_operations == (1 + 8 * 50) * alone.gram_operations
    assert cut.cross_operations == with_it.cross_operations
    assert "in 409 passes" in cut.lines()[1]
    assert "8 blocks of 13 queries" in cut.lines()[3]


def test_a_curve_is_of_as_many_queries_as_are_cheap():
    machine = Machine("a test", 2, 1e12, 1e11, 8e9, 1e9, 2**34)
    counts = [
        affordable_queries(m, 1000, 200, s, Settings(), machine) for m, s in ((500, 50), (6000, 500), (100_000, 500))
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 200 > counts[1] > counts[2]
    cost = curve_cost(6000, 1000, counts[1], Settings(), machine, 500)
    assert cost.seconds == pytest.approx(2.0, rel=0.05)


def test_operations_of_the_literatures_scale():
    cost = fit_cost(300_000, 50_000, 10_000, Settings(), NODE_64)
    assert cost.bytes_read == 300_000 * 6250 + 4 * 300_000 * 10_000
    assert cost.gram_operations == 0.5 * 300_000 * 50_000**2
    assert cost.cross_operations == 300_000 * 50_000 * 10_000
    assert 4 * 4 * 50_000**2 <= cost.shared_memory < NODE_64.memory
    assert 60 < cost.seconds < 3600
    assert 0 < cost.queries_per_block <= 10_000


def test_a_gpu_runs_fista_and_takes_queries_in_blocks():
    cost = fit_cost(300_000, 50_000, 10_000, Settings(device="cuda"), GPU_80)
    assert cost.path_operations > fit_cost(300_000, 50_000, 10_000, Settings(), NODE_64).path_operations
    assert 0 < cost.queries_per_block < 10_000
    assert "blocks of" in cost.lines()[-1]


def test_a_fit_that_cannot_fit_is_refused_with_the_remedy():
    cost = fit_cost(10_000, 50_000, 100, Settings(), SMALL)
    with pytest.raises(ConfigError, match=r"budget is 1 GiB: raise memory_gb"):
        cost.require_fits()
    assert "does not fit" in cost.lines()[-1]


def test_the_out_of_core_case_fits_into_four_gib():
    fit_cost(
        20_000, 5_000, 1_000, Settings(threads=2), Machine("laptop", 2, 1e12, 1e11, 4e9, 1e9, 4 * 2**30)
    ).require_fits()
    assert fit_cost(20_000, 5_000, 1_000, Settings(threads=2), SMALL).memory < 4 * 2**30


def test_this_machine_is_measured():
    machine = this_machine(2**30, threads=1)
    assert machine.gram_rate > 0
    assert machine.float_rate > 0
    assert fit_cost(100, 20, 3, Settings(), machine).seconds > 0
