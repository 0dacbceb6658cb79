"""The suspects are named: in Python, in the terminal and on the page, in the order of what ranks them."""

from __future__ import annotations

import html
import re
from typing import Any

import numpy as np
import pytest

import orchestrator
from orchestrator.scoring.suspects import named_suspects
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store.attributions import Attributes, StoredAttribution, read_attribution, write_attribution
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.task_record import read_record
from workers.errors import ConfigError, StoreError


def planted(sweep: Sweep, inline_pool: Any, measure: str, source: str) -> np.ndarray:
    """Train a sweep, and store attributions that know who is mislabelled (`knows`), or nothing; return who is."""
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
        wrong = read_record(sweep).examples.mislabelled
        assert wrong is not None
        rng = np.random.default_rng(0)
        good = 1 if measure == "margin" else -1
        # Mislabelled examples harm queries; and models say their labels only if they were told to.
        values = good * (-1 if source == "task" else 1) * wrong[:, None] + 0.1 * rng.normal(size=(store.n, store.t))
        for label, known in (("knows", values), ("random", rng.normal(size=values.shape))):
            about = Attributes(estimator=label, measure=measure)
            write_attribution(sweep.paths, label, StoredAttribution(known.astype(np.float32), about))
        score(sweep, store)
        report(sweep, store)
    return wrong


@pytest.fixture
def flipped(tiny: dict[str, Any], make_sweep: Any) -> Any:
    def make(source: str = "task") -> Sweep:
        tiny["task"]["arguments"]["flip_labels"] = 0.2
        tiny["queries"] = {"source": source}
        tiny["designs"] = {"heldout": {"kind": "subsets", "subsets": 2, "purpose": "score"}}
        tiny["estimators"] = {"random": {}, "knows": {"estimator": "random"}}
        sweep: Sweep = make_sweep(tiny)
        return sweep

    return make


@pytest.mark.parametrize("source", ["task", "train"])
@pytest.mark.parametrize("measure", ["margin", "loss"])
def test_the_mislabelled_come_first(flipped: Any, inline_pool: Any, measure: str, source: str) -> None:
    sweep = flipped(source)
    wrong = planted(sweep, inline_pool, measure, source)
    opened = orchestrator.open_sweep(sweep.paths.root)
    found = opened.suspects(k=20)
    assert list(found.columns) == ["example", "label", "suspicion", "mislabelled"]
    assert set(found["example"][:12]) == set(np.flatnonzero(wrong)), "as many as the task mislabelled"
    assert (np.diff(found["suspicion"]) <= 0).all()
    np.testing.assert_array_equal(found["mislabelled"], wrong[found["example"]])
    assert found["label"].tolist() == [sweep.task.label("train", i) for i in found["example"]]  # type: ignore[union-attr]
    assert found.attrs == {
        "estimator": "knows",
        "measure": measure,
        "verdict": "12 of these 20 are mislabelled, of 12 in all",
    }
    assert opened.suspects(3, "random").attrs["estimator"] == "random"
    assert len(opened.suspects(1000)) == 60
    assert opened.suspects(0).empty


def test_terminal_and_page_name_them(flipped: Any, inline_pool: Any, command: Any) -> None:
    sweep = flipped()
    wrong = planted(sweep, inline_pool, "margin", "task")
    said = command("score", sweep.paths.root).out
    assert "Suspects of knows (margin)" in said
    assert "10 of these 10 are mislabelled, of 12 in all" in said
    listed = [int(one) for one in re.findall(r"^│ +(\d+) │.*│ yes +│$", said, re.M)]
    expected = orchestrator.open_sweep(sweep.paths.root).suspects()["example"].tolist()
    assert listed == expected
    assert wrong[listed].all()
    page = html.unescape((sweep.paths.root / "report.html").read_text())
    shown = page[page.index("Finding the mislabelled ones") :]
    assert "10 of these 10 are mislabelled, of 12 in all" in shown
    assert [
        int(one) for one in re.findall(r'alt="training example (\d+), label [^"]*, mislabelled"', shown)
    ] == expected


def test_without_a_score_one_must_be_named(flipped: Any, inline_pool: Any) -> None:
    sweep = flipped()
    planted(sweep, inline_pool, "margin", "task")
    sweep.paths.scores.unlink()
    opened = orchestrator.open_sweep(sweep.paths.root)
    assert named_suspects(sweep) is None
    with pytest.raises(
        ConfigError, match=r"estimator: no score says whose suspects are the best .* one of knows, random"
    ):
        opened.suspects()
    assert len(opened.suspects(estimator="knows")) == 10
    with pytest.raises(StoreError, match="no attribution 'knowss': did you mean knows"):
        opened.suspects(estimator="knowss")
    with pytest.raises(ConfigError, match="k -1: expected how many examples to return, at least 0"):
        opened.suspects(-1)


def test_scores_of_another_attribution_choose_nobody(flipped: Any, inline_pool: Any) -> None:
    sweep = flipped()
    planted(sweep, inline_pool, "margin", "task")
    kept = read_attribution(sweep.paths, "knows")
    write_attribution(sweep.paths, "knows", StoredAttribution(-kept.values, kept.attributes))
    found = named_suspects(sweep)
    assert found is not None
    assert found.estimator == "random"


def test_a_task_that_mislabelled_none_has_suspects_too(
    tiny: Any, make_sweep: Any, inline_pool: Any, command: Any
) -> None:
    tiny["designs"] = {"heldout": {"kind": "subsets", "subsets": 2, "purpose": "score"}}
    tiny["estimators"] = {"random": {}}
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
    found = orchestrator.open_sweep(sweep.paths.root).suspects(5)
    assert list(found.columns) == ["example", "label", "suspicion"]
    assert found.attrs["verdict"] == ""
    assert "Suspects" not in command("score", sweep.paths.root).out


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, True),
        ({"queries": {"source": "task"}}, False),
        ({"scores": {"detection": None}}, False),
        ({"estimators": {"random": {}, "other": {"estimator": "random"}}}, False),
    ],
)
def test_labels_that_may_be_wrong_are_named_where_one_attribution_is_of_the_training_examples(
    tiny: Any, make_sweep: Any, inline_pool: Any, command: Any, change: dict[str, Any], named: bool
) -> None:
    tiny["designs"] = {"fit": {"kind": "subsets", "subsets": 2}}
    tiny |= {"queries": {"source": "train"}, "estimators": {"random": {}}} | change
    sweep = make_sweep(tiny)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
    said = command("score", sweep.paths.root).out
    command("report", sweep.paths.root)
    page = html.unescape((sweep.paths.root / "report.html").read_text())
    assert ("Suspects of random (margin)" in said) is named
    assert ("The task says of none that its label is wrong: look at them." in page) is named
    assert "Finding the mislabelled ones" not in page
    if named:
        found = orchestrator.open_sweep(sweep.paths.root).suspects()["example"].tolist()
        assert [int(one) for one in re.findall(r"^│ +(\d+) │", said, re.M)] == found
        shown = page[page.index("<h3>Suspects") :]
        assert [int(one) for one in re.findall(r'alt="training example (\d+), label', shown)][:10] == found


def test_a_measure_of_which_nobody_said_what_is_good_is_refused(
    game: dict[str, Any], make_sweep: Any, inline_pool: Any, rewrite: Any
) -> None:
    game["designs"] = {"fit": {"kind": "bernoulli", "subsets": 20}}
    game["estimators"] = {"random": {}}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
    with pytest.raises(
        ConfigError, match=r"scores\.detection\.better: whether higher values of 'worth' are good is not known"
    ):
        orchestrator.open_sweep(sweep.paths.root).suspects()
    rewrite(sweep.paths.root, scores={"detection": {"better": "higher"}})
    assert len(orchestrator.open_sweep(sweep.paths.root).suspects()) == 8
