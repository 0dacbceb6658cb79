import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from orchestrator.attribution import requirements
from orchestrator.stages.forecast import settle
from orchestrator.stages.plan import prepare, preview
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
HELD = {"kind": "subsets", "subsets": 5, "purpose": "score"}
LOO = {"kind": "leave_one_out", "examples": 2}


def refusal(sweep: Sweep) -> str:
    with pytest.raises(ConfigError) as caught:
        requirements.check(sweep)
    return str(caught.value)


def test_the_tiny_sweep_serves_its_estimators(make_sweep: Make, tiny: Raw) -> None:
    sweep = make_sweep(tiny)
    requirements.check(sweep)
    assert requirements.scoring_design(sweep.config, "lds") == "heldout"
    assert requirements.scoring_design(sweep.config, "loo") == "left_out"
    assert requirements.fresh_design(sweep.config) is None


@pytest.mark.parametrize(
    ("missing", "estimator", "said"),
    [
        ("fit", "difference_in_means", "needs a fitting design of kind subsets or bernoulli or explicit; add one"),
        ("reference", "tracin", "needs a fitting design of kind full with checkpoints; add one"),
        ("left_out", "leave_one_out", "needs a fitting design of kind leave_one_out; add one"),
    ],
)
def test_an_estimator_without_the_runs_it_needs_is_refused(
    make_sweep: Make, tiny: Raw, missing: str, estimator: str, said: str
) -> None:
    del tiny["designs"][missing]
    tiny["designs"].get("left_out", {}).pop("paired_with", None)
    assert refusal(make_sweep({**tiny, "estimators": {estimator: {}}})) == f"estimators.{estimator}: {said}"


def test_runs_kept_for_scoring_serve_no_estimator(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fit"]["purpose"] = "score"
    tiny["scores"]["lds"]["design"] = "heldout"
    assert refusal(make_sweep(tiny)).startswith("estimators.difference_in_means: needs a fitting design")


def test_full_designs_without_checkpoints_serve_no_gradients(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["reference"]["checkpoints"] = "none"
    assert refusal(make_sweep(tiny)).startswith(
        "estimators.tracin: needs a fitting design of kind full with checkpoints"
    )


@pytest.mark.parametrize("checkpoints", ["last", "none"])
def test_what_an_option_asks_for_is_asked_of_the_sweep(make_sweep: Make, tiny: Raw, checkpoints: str) -> None:
    """Votes between inputs look at no model, those between representations at the reference models."""
    tiny["designs"]["reference"]["checkpoints"] = checkpoints
    requirements.check(make_sweep({**tiny, "estimators": {"knn_shapley": {}}}))
    sweep = make_sweep({**tiny, "estimators": {"knn_shapley": {"features": "representation"}}})
    if checkpoints == "last":
        requirements.check(sweep)
    else:
        said = "estimators.knn_shapley: needs a fitting design of kind full with checkpoints; add one"
        assert refusal(sweep) == said


def test_a_black_box_has_no_gradients(make_sweep: Make, tiny: Raw) -> None:
    tiny["task"] = {"name": "box.py:Box"}
    sweep = make_sweep({**tiny, "measures": ["m"]})
    (sweep.config.folder / "box.py").write_text(
        "class Box:\n    n, t, measures = 60, 2, ('m',)\n"
        "    def train(self, subset, seed): ...\n    def measure(self, model): ...\n"
    )
    assert refusal(sweep) == (
        "estimators.tracin: needs gradients, so a DifferentiableTask or one that trains itself; "
        "the task 'box.py:Box' is a black box"
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("fti", r"fitting design 'fti' does not exist: did you mean fit? (known: fit, left_out, reference)"),
        (
            "heldout",
            r"fitting design 'heldout' is kept for scoring: did you mean left_out? (known: fit, left_out, reference)",
        ),
    ],
)
def test_an_estimators_design_must_be_one_to_fit_on(make_sweep: Make, tiny: Raw, named: str, said: str) -> None:
    tiny["estimators"]["difference_in_means"] = {"design": named}
    assert refusal(make_sweep(tiny)) == f"estimators.difference_in_means.design: {said}"


def test_a_score_must_know_its_design(make_sweep: Make, tiny: Raw) -> None:
    two = deepcopy(tiny)
    two["designs"]["second"] = HELD
    assert refusal(make_sweep(two)) == "scores.lds.design: several designs can serve (heldout, second); name one"
    two["scores"]["lds"]["design"] = "second"
    requirements.check(make_sweep(two))
    two["scores"]["lds"]["design"] = "fit"
    assert refusal(make_sweep(two)).startswith("scores.lds.design: 'fit' is not a design that can serve here: ")
    two["scores"]["lds"] = None
    sweep = make_sweep(two)
    requirements.check(sweep)
    assert requirements.scoring_design(sweep.config, "lds") is None
    assert requirements.fresh_design(sweep.config) is None


def test_several_leave_one_out_designs_are_told_apart_before_any_training(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["more"] = LOO
    assert refusal(make_sweep(tiny)) == "scores.loo.design: several designs can serve (left_out, more); name one"


def test_fresh_seeds_are_those_of_the_scored_design(make_sweep: Make, tiny: Raw) -> None:
    tiny["designs"]["fresh"] = {"kind": "again", "of": "heldout", "purpose": "score"}
    tiny["designs"]["other"] = {"kind": "again", "of": "fit"}
    config = make_sweep(tiny).config
    assert requirements.scoring_design(config, "lds") == "heldout"
    assert requirements.fresh_design(config) == "fresh"


def test_no_scoring_designs_are_no_mistake(make_sweep: Make, tiny: Raw) -> None:
    del tiny["designs"]["heldout"], tiny["designs"]["left_out"]
    sweep = make_sweep(tiny)
    requirements.check(sweep)
    assert requirements.scoring_design(sweep.config, "lds") is requirements.scoring_design(sweep.config, "loo") is None


def test_an_estimator_is_asked_once_however_many_stages_check(
    make_sweep: Make, tiny: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["estimators"] = {"tracin": {}, "influence": {}}
    sweep = make_sweep(tiny)
    module, built = sweep.task.module, []
    monkeypatch.setattr(sweep.task, "module", lambda: built.append(1) or module())
    preview(sweep)
    once = len(built)
    assert once > 0
    settled, _ = settle(sweep)
    preview(settled.with_pack(4))
    prepare(settled).close()
    assert len(built) == once
    tiny["estimators"]["tracin"] = {"measure": "loss"}
    preview(make_sweep(tiny).sharing_task_of(sweep))
    assert len(built) > once, "another configuration is checked anew"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"grad_dot": {"models": 9}}, "estimators.grad_dot.models: expected at most 2, the reference models that keep"),
        (
            {"trak": {"project_dim": 10**9}},
            "estimators.trak: trak: projected gradients of .* expected a smaller project_dim",
        ),
        ({"logra": {"memory_gb": 1e-6}}, "estimators.logra: logra: projected gradients of .* expected a smaller rank"),
        (
            {"less": {"project_dim": 10**9}},
            "estimators.less: less: projected gradients of .* expected a smaller project_dim",
        ),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_cannot_be_had_is_said_before_training(make_sweep: Make, options: Raw, line: str) -> None:
    raw: Raw = {
        "name": "small",
        "task": {"name": "digits", "arguments": {"n": 20, "t": 2, "hidden": 4, "recipe": {"epochs": 1}}},
        "measures": ["margin"],
        "designs": {"reference": {"kind": "full", "seeds": 2, "checkpoints": [1]}},
        "estimators": options,
    }
    said = refusal(make_sweep(raw))
    assert re.match(line, said)
    assert "\n" not in said
