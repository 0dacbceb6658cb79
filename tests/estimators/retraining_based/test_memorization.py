"""Memorization and influence against their definitions, one example at a time."""

import numpy as np
import pytest

from estimators.evidence import Evidence, Runs
from estimators.registry import find
from estimators.scores.per_example import own_effects
from workers import Queries
from workers.errors import ConfigError, DataError


def evidence(masks, outputs, queries):
    m = len(masks)
    runs = Runs("half", "subsets", "correct", masks, outputs, np.arange(m), np.zeros(m, np.int64))
    return Evidence(masks.shape[1], outputs.shape[1], "correct", runs={"half": runs}, queries=queries)


@pytest.mark.parametrize("indices", [None, (5, 0, 3)])
def test_equals_the_definition(indices):
    rng = np.random.default_rng(0)
    n, m, queries = 8, 40, Queries("train", indices)
    examples = list(indices or range(n))
    masks = rng.random((m, n)) < 0.5
    seen = masks[:, examples]
    outputs = (rng.random(seen.shape) < np.where(seen, 0.9, 0.4)).astype(np.float32)
    found = find("memorization")().attribute(evidence(masks, outputs, queries))
    own, memorized = own_effects(found.values, queries)
    assert own.tolist() == examples
    for q, j in enumerate(examples):
        for i in range(n):
            saw = [outputs[r, q] for r in range(m) if masks[r, i]]
            did_not = [outputs[r, q] for r in range(m) if not masks[r, i]]
            influence = np.mean(saw) - np.mean(did_not)
            np.testing.assert_allclose(found.values[i, q], influence, atol=1e-6)
            if i == j:
                np.testing.assert_allclose(memorized[q], influence, atol=1e-6)
    _, errors = own_effects(found.standard_error, queries)
    assert (errors > 0).all()
    assert found.fitted_on == ("half",)


def test_an_example_that_only_its_own_models_know_is_memorized():
    masks = np.random.default_rng(1).random((30, 5)) < 0.5
    outputs = masks.astype(np.float32)
    outputs[:, 0] = 1
    queries = Queries("train")
    found = find("memorization")().attribute(evidence(masks, outputs, queries))
    np.testing.assert_allclose(own_effects(found.values, queries)[1], [0, 1, 1, 1, 1], atol=1e-6)


def test_other_queries_and_one_sided_examples_are_refused():
    masks, outputs = np.random.default_rng(1).random((30, 5)) < 0.5, np.zeros((30, 5), np.float32)
    with pytest.raises(ConfigError, match="the queries are the task's own, expected training examples"):
        find("memorization")().attribute(evidence(masks, outputs, Queries()))
    with pytest.raises(ConfigError, match="needs queries that are training examples"):
        own_effects(outputs[:5], Queries())
    masks[:, 2] = True
    with pytest.raises(DataError, match="0 are in none of its subsets and 1 in all"):
        find("memorization")().attribute(evidence(masks, outputs, Queries("train")))
