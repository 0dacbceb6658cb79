import tracemalloc

import numpy as np
import pytest

from estimators.lasso.collect import Split, blocks_of, collect
from estimators.lasso.cost import GPU_80, NODE_64, Machine, forecast, this_machine
from estimators.lasso.fit import fit
from estimators.lasso.settings import Settings
from workers.errors import ConfigError

SMALL = Machine("a test", 1, 1e12, 1e11, 2e9, 1e9, 2**30)


@pytest.mark.parametrize(
    ("m", "n", "t", "folds"), [(600, 500, 20, None), (400, 700, 10, None), (900, 300, 150, None), (300, 300, 10, 3)]
)
def test_memory_is_forecast_to_within_a_factor_of_two_and_not_too_low(problem_of, m, n, t, folds):
    masks, outputs = problem_of(m, n, t, noise=10.0)
    options = Settings(threads=1, folds=folds)
    split = Split.draw(np.arange(m), options, 0)
    fit(collect(blocks_of(masks, outputs), split, options), options)  # compile
    tracemalloc.start()
    try:
        fit(collect(blocks_of(masks, outputs), split, options), options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    expected = forecast(m, n, t, options, SMALL).memory
    assert 0.5 * expected < peak < 1.1 * expected


def test_operations_of_the_literatures_scale():
    cost = forecast(300_000, 50_000, 10_000, Settings(), NODE_64)
    assert cost.bytes_read == 300_000 * 6250 + 4 * 300_000 * 10_000
    assert cost.gram_operations == 0.5 * 300_000 * 50_000**2
    assert cost.cross_operations == 300_000 * 50_000 * 10_000
    assert 4 * 4 * 50_000**2 <= cost.shared_memory < NODE_64.memory
    assert 60 < cost.seconds < 3600
    assert 0 < cost.queries_per_block <= 10_000


def test_a_gpu_runs_fista_and_takes_queries_in_blocks():
    cost = forecast(300_000, 50_000, 10_000, Settings(device="cuda"), GPU_80)
    assert cost.path_operations > forecast(300_000, 50_000, 10_000, Settings(), NODE_64).path_operations
    assert 0 < cost.queries_per_block < 10_000
    assert "blocks of" in cost.lines()[-1]


def test_a_fit_that_cannot_fit_is_refused_with_the_remedy():
    cost = forecast(10_000, 50_000, 100, Settings(), SMALL)
    with pytest.raises(ConfigError, match=r"budget is 1 GiB: raise memory_gb"):
        cost.require_fits()
    assert "does not fit" in cost.lines()[-1]


def test_the_out_of_core_case_fits_into_four_gib():
    forecast(
        20_000, 5_000, 1_000, Settings(threads=2), Machine("laptop", 2, 1e12, 1e11, 4e9, 1e9, 4 * 2**30)
    ).require_fits()
    assert forecast(20_000, 5_000, 1_000, Settings(threads=2), SMALL).memory < 4 * 2**30


def test_this_machine_is_measured():
    machine = this_machine(2**30, threads=1)
    assert machine.gram_rate > 0
    assert machine.float_rate > 0
    assert forecast(100, 20, 3, Settings(), machine).seconds > 0
