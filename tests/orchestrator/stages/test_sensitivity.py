"""How the LDS goes with an option: each value judged by the scoring runs, nothing of it in the leaderboard, and it goes on."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

import orchestrator
from estimators import registry
from estimators.contract import Attribution, Estimator
from estimators.curvature.damping import unrolled_damping
from estimators.evidence import Evidence
from estimators.scores import lds
from orchestrator.attribution.evidence import heldout, planned_subsets
from orchestrator.config.estimator_section import EstimatorSection, Given
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.stages.sensitivity import Request, sensitivity
from orchestrator.store.attributions import list_attributions
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
N, T = 12, 3
WORTH = 0.9 ** np.arange(N)


class Knob(Estimator):
    """Says what examples are worth, the better the nearer its knob is to 1."""

    name: ClassVar[str] = "knob"
    knob: float = 10.0
    turns: int = 8
    way: Literal["left", "right"] = "left"
    jammed: ClassVar[float | None] = None
    asked: ClassVar[list[float]] = []

    def attribute(self, evidence: Evidence) -> Attribution:
        type(self).asked.append(self.knob)
        evidence.workspace.keep("piece", {"one": np.zeros(1)})
        if self.knob == self.jammed:
            raise ConfigError("the knob is jammed")
        noise = np.random.default_rng(0).normal(size=(N, T))
        return Attribution((WORTH[:, None] + np.log10(self.knob) * noise).astype(np.float32))


@pytest.fixture
def trained(game: Raw, make_sweep: Any, inline_pool: Any, monkeypatch: Any) -> Iterator[tuple[Sweep, RunStore]]:
    monkeypatch.setitem(registry.BUILT_IN, "knob", f"{__name__}:Knob")
    monkeypatch.setattr(Knob, "jammed", None)
    Knob.asked.clear()
    game["task"]["arguments"] = {"n": N, "noise": 0.01}
    game["designs"] = {
        "fit": {"kind": "subsets", "subsets": 20},
        "heldout": {"kind": "subsets", "subsets": 30, "seeds": 2, "purpose": "score"},
    }
    game["estimators"] = {"mine": {"estimator": "knob", "tune": {"knob": [0.5, 1.0, 2.0]}}}
    sweep = make_sweep(game)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        yield sweep, store
    registry.find.cache_clear()
    registry.names.cache_clear()


def test_each_value_is_judged_as_a_score_is(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    found = sensitivity(sweep, store, Request("knob", "knob", [1.0, 0.1]))
    rows = {row["number"]: row for row in found.table.to_dict("records")}
    assert list(rows) == [0.1, 1.0, 10.0], "ascending, the default beside them"
    assert [number for number, row in rows.items() if row["default"]] == [10.0]
    runs = heldout(sweep, store, "worth")
    assert runs is not None
    for number, row in rows.items():
        made = Knob(knob=number).attribute(Evidence(N, T, "worth"))
        same = lds(made.values, runs, resamples=1000, seed=0, planned=planned_subsets(store, "heldout"))
        assert (row["lds"], row["low"], row["high"], row["ceiling"]) == (same.value, same.low, same.high, same.ceiling)
        assert (row["subsets"], row["design"], row["measure"]) == (30, "heldout", "worth")
    assert rows[1.0]["lds"] > 0.95 > rows[0.1]["lds"]


def test_nothing_of_it_is_in_the_leaderboard(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    attribute(sweep, store)
    before = score(sweep, store)
    sensitivity(sweep, store, Request("mine", "knob", [1.0]))
    assert list_attributions(sweep.paths) == ["mine"]
    assert score(sweep, store).equals(before)
    assert not sweep.paths.pieces.exists()


def test_it_goes_on_where_a_former_call_ended(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    told: list[tuple[float, bool]] = []

    def stop(one: Any, kept: bool) -> None:
        told.append((one.number, kept))
        if one.number == 1.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sensitivity(sweep, store, Request("knob", "knob", [0.1, 1.0, 2.0]), stop)
    assert Knob.asked == [10.0, 0.1, 1.0]
    Knob.asked.clear()
    told.clear()
    found = sensitivity(
        sweep, store, Request("knob", "knob", [0.1, 1.0, 2.0]), lambda one, kept: told.append((one.number, kept))
    )
    assert Knob.asked == [2.0]
    assert told == [(10.0, True), (0.1, True), (1.0, True), (2.0, False)]
    assert found.table.number.tolist() == [0.1, 1.0, 2.0, 10.0]
    Knob.asked.clear()
    sensitivity(sweep, store, Request("knob", "turns", [3, 4]))
    assert Knob.asked == [10.0] * 3, "of another option nothing stands"


def test_of_other_options_that_are_tuned_the_chosen_values_are_taken(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    with pytest.raises(ConfigError, match="its knob is tuned, but not chosen yet"):
        sensitivity(sweep, store, Request("mine", "turns", [4]))
    attribute(sweep, store)
    Knob.asked.clear()
    sensitivity(sweep, store, Request("mine", "turns", [4]))
    assert Knob.asked == [1.0, 1.0], "of a tuned option the chosen value"


def test_where_another_option_is_changed_nothing_stands(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained

    def turned(turns: int) -> Sweep:
        section = EstimatorSection.model_validate(Given({"estimator": "knob", "turns": turns}, Path()))
        return replace(sweep, config=sweep.config.model_copy(update={"estimators": {"mine": section}}))

    for turns, asked in ((4, 2), (4, 0), (5, 2)):
        Knob.asked.clear()
        sensitivity(turned(turns), store, Request("mine", "knob", [1.0]))
        assert len(Knob.asked) == asked


def test_the_figure_marks_default_tuned_choice_and_ceiling(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    attribute(sweep, store)
    drawn = sensitivity(sweep, store, Request("mine", "knob", [0.5, 1.0, 2.0])).svg.read_text()
    ElementTree.fromstring(drawn)
    assert "var(--" not in drawn
    assert "mathdefault" not in drawn  # the report's figures take dollar signs as they are
    for word in ("default", "tuned", "knob of mine", "LDS (worth, heldout)"):
        assert word in drawn
    other = sensitivity(sweep, store, Request("knob", "knob", [0.5, 1.0])).svg.read_text()
    assert ">tuned<" not in other


def test_a_value_with_which_nothing_can_be_computed_is_a_row_with_its_reason(
    trained: tuple[Sweep, RunStore], monkeypatch: Any
) -> None:
    sweep, store = trained
    monkeypatch.setattr(Knob, "jammed", 2.0)
    found = sensitivity(sweep, store, Request("knob", "knob", [1.0, 2.0]))
    rows = list(csv.DictReader(found.csv.read_text().splitlines()))
    assert [(row["setting"], row["error"]) for row in rows] == [
        ("1.0", ""),
        ("2.0", "the knob is jammed"),
        ("10.0", ""),
    ]
    assert rows[1]["lds"] == "nan"
    monkeypatch.setattr(Knob, "jammed", None)
    Knob.asked.clear()
    sensitivity(sweep, store, Request("knob", "knob", [1.0, 2.0]))
    assert Knob.asked == [2.0], "it is tried again"


def test_a_range_is_around_the_default(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    found = sensitivity(sweep, store, Request("knob", "knob")).table.number
    assert np.allclose(found, 10 * 10 ** (np.arange(-4, 5) / 2))
    assert sensitivity(sweep, store, Request("knob", "turns")).table.number.tolist() == [2, 4, 8, 16, 32]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Request("nob", "knob"), "unknown estimator 'nob'"),
        (Request("knob", "nob"), "estimator 'knob' has no option 'nob': did you mean knob?"),
        (Request("knob", "way"), "option 'way' of knob is not numeric; those that are: knob, turns"),
        (Request("knob", "knob", ["much"]), "values of knob: expected numbers, such as 0.01,0.1,1, found 'much'"),
        (Request("knob", "knob", [1, 1]), "values of knob: 1 is there twice"),
        (Request("knob", "knob", []), "values of knob: expected at least one number"),
        (Request("knob", "turns", [0.5]), "estimator knob: turns: "),
        (Request("knob", "knob", [1], "wort"), "measure 'wort' is not recorded"),
        (Request("tracin", "models"), "needs gradients"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_computed(
    trained: tuple[Sweep, RunStore], asked: Request, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        sensitivity(*trained, asked)
    assert message in str(refused.value)
    assert not Knob.asked


def test_a_damaged_table_is_named(trained: tuple[Sweep, RunStore]) -> None:
    sweep, store = trained
    path = sensitivity(sweep, store, Request("knob", "knob", [1.0])).csv
    path.write_text(path.read_text().replace("number", "numbr"))
    with pytest.raises(Exception, match=r"knob\.knob\.csv is damaged .*delete it"):
        sensitivity(sweep, store, Request("knob", "knob", [1.0]))


def test_a_damping_that_is_no_number_has_a_range_all_the_same(sweep_copy: Path, command: Any, refused: Any) -> None:
    ended = command("sensitivity", sweep_copy, "--estimator", "influence", "--option", "damping", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    numbers = [row["number"] for row in told["values"]]
    sweep = Sweep.at(sweep_copy)
    centre = unrolled_damping(sweep.task.recipe, sweep.task.n)
    assert np.allclose(numbers[1:], centre * 10 ** (np.arange(-4, 5) / 2))
    assert (told["values"][0]["setting"], numbers[0]) == ('"auto"', None)
    middle = told["values"][5]
    assert middle["lds"] == pytest.approx(told["values"][0]["lds"]), "auto is what it is said to be"
    assert "damping = " in ended.err
    assert "not numeric" in refused("sensitivity", sweep_copy, "--estimator", "influence", "--option", "solver")
    table = orchestrator.sensitivity(sweep_copy, "influence", "damping", np.array([centre]))
    assert Path(table.attrs["svg"]).is_file()
    assert len(table) == len(told["values"]), "all of them stood"
