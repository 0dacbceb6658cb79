"""The one loop over reference models: several numbers of them in one pass."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import torch

from estimators.reference_estimator import ModelEffects, ReferenceEstimator
from estimators.registry import BUILT_IN, find
from estimators.testing import model_evidence
from workers.errors import ConfigError

OPTIONS = {"knn_shapley": {"features": "representation"}, "source": {"segments": 2}}
NAMES = [name for name in BUILT_IN if issubclass(find(name), ReferenceEstimator)]


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_gives_what_each_number_of_models_gives_alone(name: str, toy, evidence_of) -> None:
    kind, evidence = find(name), evidence_of(toy("classification", hidden=4), "margin", models=3)
    options = OPTIONS.get(name, {})
    found = dict(kind(**options).attributions(evidence, {3, 1}))
    assert list(found) == [1, 3]
    for models, made in found.items():
        alone = kind(models=models, **options).attribute(evidence)
        np.testing.assert_array_equal(made.values, alone.values)
        told, expected = ({**one.details, "training_seconds": None} for one in (made, alone))
        assert told == expected, "told while only these models had been seen"
        assert made.models == models
    assert (found[1].values != found[3].values).any()


class Counting(ReferenceEstimator):
    """Says how many models were looked at."""

    name: ClassVar[str] = "counting"
    looked: ClassVar[list[int]] = []

    def effects(self, material):
        return CountingEffects(material)


class CountingEffects(ModelEffects):
    def of_model(self, model, checkpoint) -> Iterator:
        Counting.looked.append(1)
        yield slice(None), torch.full((24, 4), float(len(Counting.looked)), dtype=torch.float64)

    def values(self, total):
        return total.div_(len(self.material.references))  # changes what it is given


def test_every_model_is_looked_at_once(monkeypatch) -> None:
    monkeypatch.setattr(Counting, "looked", [])
    found = dict(Counting(models=1).attributions(model_evidence(), (1, 2)))
    assert len(Counting.looked) == 2
    assert (found[1].values[0, 0], found[2].values[0, 0]) == (1.0, 1.5)


def test_more_models_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'counting' needs 3 reference model.*the sweep has 2"):
        list(Counting().attributions(model_evidence(), (1, 3)))
