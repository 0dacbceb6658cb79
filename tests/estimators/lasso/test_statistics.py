import numpy as np
import pytest

from estimators.lasso.statistics import Statistics


def dense(masks, output, standardize):
    """Centre (and scale) the observed rows of one query, densely."""
    there = ~np.isnan(output)
    x, y = masks[there].astype(float), output[there]
    scale = 1 / np.where(x.std(0) > 0, x.std(0), np.inf) if standardize else np.ones(x.shape[1])
    x = (x - x.mean(0)) * scale
    y = y - y.mean()
    return x.T @ x / len(x), x.T @ y / len(x), y @ y / len(x)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_centred_problem_is_the_dense_one_for_every_query(problem_of, statistics_of, standardize):
    masks, outputs = problem_of(60, 12, 5)
    masks[:, 3], masks[:, 4] = True, False
    outputs[:7, 1], outputs[10:30, 2], outputs[:7, 3] = np.nan, np.nan, np.nan
    seen = []
    for problem in statistics_of(masks, outputs, block=17).quadratics(np.float64, standardize):
        for k, query in enumerate(problem.queries):
            gram, cross, power = dense(masks, outputs[:, query], standardize)
            np.testing.assert_allclose(problem.gram, gram, atol=1e-12)
            np.testing.assert_allclose(problem.cross[k], cross, atol=1e-12)
            np.testing.assert_allclose(problem.power[k], power, rtol=1e-12)
            np.testing.assert_allclose(problem.output_means[k], np.nanmean(outputs[:, query]))
            seen.append(int(query))
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_queries_that_miss_the_same_runs_share_a_problem(problem_of, statistics_of):
    masks, outputs = problem_of(20, 6, 4)
    outputs[2:5, [0, 3]] = np.nan
    groups = [p.queries.tolist() for p in statistics_of(masks, outputs).quadratics(np.float64)]
    assert groups == [[0, 3], [1, 2]]


def test_parts_merge_into_the_whole(problem_of, statistics_of):
    masks, outputs = problem_of(50, 9, 3)
    outputs[4, 2] = np.nan
    whole = statistics_of(masks, outputs)
    parts = []
    for rows in (slice(0, 13), slice(13, 50)):
        parts.append(Statistics.empty(9, whole.shift))
        parts[-1].accumulate(masks[rows], outputs[rows], np.float64)
    merged = Statistics.merge(parts)
    np.testing.assert_array_equal(merged.gram, whole.gram)
    np.testing.assert_allclose(merged.cross, whole.cross, atol=1e-12)
    assert merged.rows == whole.rows
    np.testing.assert_array_equal(merged.observed(), [50, 50, 49])


def test_parts_with_different_shifts_do_not_merge():
    with pytest.raises(ValueError, match="shift"):
        Statistics.merge([Statistics.empty(2, np.zeros(1)), Statistics.empty(2, np.ones(1))])


def test_some_queries_are_taken_with_what_they_miss(problem_of, statistics_of):
    masks, outputs = problem_of(30, 5, 4)
    outputs[:3, 2] = np.nan
    taken, direct = statistics_of(masks, outputs).take(np.array([3, 2])), statistics_of(masks, outputs[:, [3, 2]])
    for a, b in zip(taken.quadratics(np.float64), direct.quadratics(np.float64), strict=True):
        np.testing.assert_array_equal(a.queries, b.queries)
        np.testing.assert_allclose(a.cross, b.cross, atol=1e-12)
        np.testing.assert_array_equal(a.gram, b.gram)
