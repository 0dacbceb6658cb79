"""An estimator that fails, in whatever way, fails alone; an attribution is stamped with and charged for what was looked at."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from estimators import registry
from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence
from orchestrator.stages.attribute import Attributed, attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store import accounting
from orchestrator.store.attributions import list_attributions, read_attributes_of
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep

Raw = dict[str, Any]
N, T = 8, 3
GOOD = Attribution(np.zeros((N, T), np.float32))


class Theirs(Estimator):
    """Does what a test tells it to."""

    name: ClassVar[str] = "theirs"
    does: ClassVar[Callable[[], Any]] = lambda: GOOD

    def attribute(self, evidence: Evidence) -> Attribution:
        made: Attribution = type(self).does()
        return made


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Say what the third party's estimator does."""
    monkeypatch.setitem(registry.BUILT_IN, "theirs", f"{__name__}:Theirs")
    return lambda what: monkeypatch.setattr(Theirs, "does", staticmethod(what))


@pytest.fixture
def trained(
    game: Raw, make_sweep: Callable[[Raw], Sweep], inline_pool: Any, does: Any
) -> Iterator[tuple[Sweep, RunStore]]:
    game["task"]["arguments"] = {"n": N}
    game["designs"] = {"fit": {"kind": "subsets", "subsets": 20}}
    game["estimators"] = {"theirs": {}, "difference_in_means": {}}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        yield sweep, store
    registry.find.cache_clear()


def singular() -> Attribution:
    np.linalg.inv(np.zeros((2, 2)))
    return GOOD


def attributed(sweep: Sweep, store: RunStore, *, again: bool = False) -> Attributed:
    """Attribute, see that the other estimator went on, and return what became of the third party's."""
    theirs, other = attribute(sweep, store, again=again)
    assert not other.error
    return theirs


def test_an_exception_of_any_kind_is_one_line_with_its_traceback_kept(
    trained: tuple[Sweep, RunStore], does: Any
) -> None:
    sweep, store = trained
    assert not attributed(sweep, store).error
    assert list_attributions(sweep.paths) == ["difference_in_means", "theirs"]
    does(singular)
    failed = attributed(sweep, store, again=True)
    kept = sweep.paths.estimator_failure("theirs")
    assert failed.error == f"estimators.theirs: LinAlgError: Singular matrix (the traceback is in {kept})"
    assert "in singular" in kept.read_text()
    assert list_attributions(sweep.paths) == ["difference_in_means"], "an older answer does not stand in for it"
    does(lambda: GOOD)
    assert not attributed(sweep, store).error
    assert not kept.exists()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (replace(GOOD, values=np.zeros((T, N), np.float32)), "returned values of shape (3, 8), expected (8, 3)"),
        (replace(GOOD, bias=np.zeros(N, np.float32)), "returned bias of shape (8,), expected (3,)"),
        (
            replace(GOOD, standard_error=np.zeros(N, np.float32)),
            "returned standard_error of shape (8,), expected (8, 3)",
        ),
        (replace(GOOD, utility=np.zeros(T, np.float32)), "returned utility of shape (3,), expected (8,)"),
        (
            replace(GOOD, utility_standard_error=np.zeros((N, T), np.float32)),
            "returned utility_standard_error of shape (8, 3), expected (8,)",
        ),
        (replace(GOOD, values=np.full((N, T), np.nan, np.float32)), "24 of 24 attributions are not finite"),
    ],
)
def test_every_array_that_is_returned_is_checked(
    trained: tuple[Sweep, RunStore], does: Any, made: Attribution, message: str
) -> None:
    sweep, store = trained
    does(lambda: made)
    assert attributed(sweep, store).error == f"estimators.theirs: {message}"
    assert not sweep.paths.estimator_failure("theirs").exists(), "the line says it all"


def test_what_is_no_attribution_is_its_failure_too(trained: tuple[Sweep, RunStore], does: Any) -> None:
    does(lambda: None)
    assert "AttributeError" in attributed(*trained).error


def test_reference_models_that_an_option_asks_for_are_stamped_and_charged(
    make_sweep: Callable[[Raw], Sweep], tiny: Raw, inline_pool: Any
) -> None:
    tiny["designs"] = {"reference": tiny["designs"]["reference"]}
    tiny["estimators"] = {
        "of_inputs": {"estimator": "knn_shapley"},
        "of_models": {"estimator": "knn_shapley", "features": "representation"},
    }
    tiny["scores"] = {}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert [one.error for one in attribute(sweep, store)] == ["", ""]
        references = accounting.rows_hash(store, "reference")
    of_inputs, of_models = (read_attributes_of(sweep.paths, label) for label in ("of_inputs", "of_models"))
    assert (of_inputs.models, of_inputs.train_seconds) == (0, 0)
    assert of_models.models == 2
    assert of_models.train_seconds > 0
    assert of_inputs.rows == {}
    assert of_models.rows == {"reference": references}
    assert "checkpoints" in of_models.needs


def test_a_design_without_a_finished_run_is_named_as_one(tiny: Any, make_sweep: Any, inline_pool: Any) -> None:
    tiny["estimators"] = {"difference_in_means": {}}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        (done,) = attribute(sweep, store)
    assert done.error.startswith(
        "estimators.difference_in_means: the estimator needs one fitting design of kind subsets or"
    )
    assert "the sweep has: " in done.error
    assert "fit (subsets) without a finished run" in done.error
    assert "none" not in done.error


def test_reference_models_are_charged_for_by_how_many_were_looked_at(
    make_sweep: Callable[[Raw], Sweep], tiny: Raw, inline_pool: Any
) -> None:
    tiny["designs"] = {"reference": tiny["designs"]["reference"]}
    tiny["estimators"] = {"tracin": {"models": [1, 2]}, "influence": {}}
    tiny["scores"] = {}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert [(one.estimator, one.error) for one in attribute(sweep, store)] == [
            ("tracin_1", ""),
            ("tracin_2", ""),
            ("influence", ""),
        ]
        assert all(one.kept for one in attribute(sweep, store))
        whole = accounting.train_seconds(store, ["reference"])
    found = {label: read_attributes_of(sweep.paths, label) for label in ("tracin_1", "tracin_2", "influence")}
    assert [one.models for one in found.values()] == [1, 2, 2]
    assert [one.train_seconds for one in found.values()] == pytest.approx([whole / 2, whole, whole])
    assert found["tracin_1"].seconds < found["tracin_2"].seconds


def test_reference_models_that_failed_are_the_reason_that_is_told(
    make_sweep: Callable[[Raw], Sweep], inline_pool: Any
) -> None:
    recipe = {"epochs": 1, "lr": 1e30}
    sweep = make_sweep(
        {
            "name": "diverged",
            "task": {"name": "digits", "arguments": {"n": 20, "t": 2, "hidden": 4, "recipe": recipe}},
            "measures": ["margin"],
            "designs": {"reference": {"kind": "full", "seeds": 2, "checkpoints": [1]}},
            "estimators": {"grad_dot": {}},
        }
    )
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        (done,) = attribute(sweep, store, before_task=lambda: "")
    assert "the sweep has 0: 2 trainings of reference failed, the first with DivergedError: " in done.error
    assert "\n" not in done.error
