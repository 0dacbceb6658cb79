"""Options are chosen by fitting runs, by none that judge; an estimator that is fitted on them is judged by others of them."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from rich.console import Console

from estimators import registry
from estimators.contract import Attribution, Estimator, Need
from estimators.evidence import Evidence
from estimators.findings import Findings
from orchestrator.attribution import tuning
from orchestrator.attribution.requirements import check
from orchestrator.cli.tables import leaderboard
from orchestrator.report.page.notebook import scores_html
from orchestrator.scoring.table import as_rows
from orchestrator.stages.attribute import Attributed, attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store import accounting
from orchestrator.store.attributions import Attributes, read_attributes_of
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

Raw = dict[str, Any]
N, T = 12, 3
GRID = [0.1, 0.3, 1.0, 3.0]
WORTH = 0.9 ** np.arange(N)


class Knob(Estimator):
    """Says what examples are worth, the better the nearer its knob is to 1; from 0 on downwards it fails."""

    name: ClassVar[str] = "knob"
    knob: float = 10.0

    def attribute(self, evidence: Evidence) -> Attribution:
        if self.knob <= 0:
            raise ConfigError("the knob is at its stop")
        noise = np.random.default_rng(0).normal(size=(N, T))
        return Attribution((WORTH[:, None] + np.log10(self.knob) * noise).astype(np.float32))


class Fitted(Estimator):
    """As `Knob`, but for its need, and that it remembers what it was given."""

    name: ClassVar[str] = "fitted"
    needs: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    seen: ClassVar[list[Any]] = []
    knob: float = 10.0

    def attribute(self, evidence: Evidence) -> Attribution:
        runs = evidence.runs["fit"]
        type(self).seen.append(runs)
        made = Knob(knob=self.knob).attribute(evidence)
        return Attribution(made.values, fitted_on=("fit",), models=len(runs.subsets))


@pytest.fixture
def knobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for kind in (Knob, Fitted):
        monkeypatch.setitem(registry.BUILT_IN, kind.name, f"{__name__}:{kind.__name__}")
    Fitted.seen.clear()
    yield
    registry.find.cache_clear()
    registry.names.cache_clear()


@pytest.fixture
def raw(game: Raw, knobs: None) -> Raw:
    game["task"]["arguments"] = {"n": N, "noise": 0.01}
    game["measures"] = ["worth"]
    game["designs"] = {
        "fit": {"kind": "subsets", "subsets": 60, "seeds": 2},
        "heldout": {"kind": "subsets", "subsets": 30, "seeds": 2, "purpose": "score"},
    }
    game["estimators"] = {"knob": {"tune": {"knob": GRID}}}
    return game


@pytest.fixture
def trained(make_sweep: Callable[[Raw], Sweep], inline_pool: Any) -> Iterator[Callable[[Raw], tuple[Sweep, RunStore]]]:
    opened: list[RunStore] = []

    def train(given: Raw) -> tuple[Sweep, RunStore]:
        sweep = make_sweep(given)
        check(sweep)
        store = prepare(sweep)
        opened.append(store)
        retrain(sweep, store, pool=inline_pool(sweep))
        return sweep, store

    yield train
    for store in opened:
        store.close()


def only(sweep: Sweep, store: RunStore) -> tuple[Attributed, Attributes]:
    (done,) = attribute(sweep, store)
    assert not done.error
    return done, read_attributes_of(sweep.paths, done.estimator)


def test_the_best_by_fitting_runs_is_chosen_and_that_is_told(raw: Raw, trained: Any) -> None:
    sweep, store = trained(raw)
    done, kept = only(sweep, store)
    assert kept.options == {"knob": 1.0}
    found = Findings.from_json(kept.details).tuning
    assert found is not None
    assert dict(found.chosen) == {"knob": 1.0}
    assert [dict(one.values) for one in found.tried] == [{"knob": value} for value in GRID]
    assert found.best.lds > 0.95
    assert found.best.lds == max(one.lds for one in found.tried)
    assert (found.design, found.subsets, found.held_out, found.told_apart) == ("fit", 60, False, True)
    assert not found.at_the_end
    assert 0 < found.seconds <= done.seconds
    (line,) = done.notes
    assert line.startswith("tuned: knob = 1, of 4 values by 60 subsets of fit; LDS there 0.9")
    assert "grid" not in line


def test_it_is_charged_for_the_runs_that_chose_and_never_judged_by_them(raw: Raw, trained: Any) -> None:
    sweep, store = trained(raw)
    _, kept = only(sweep, store)
    assert kept.fitted_on == ("fit",)
    assert kept.train_seconds == pytest.approx(accounting.train_seconds(store, ["fit"]))
    assert kept.rows == {"fit": accounting.rows_hash(store, "fit")}
    (done,) = attribute(sweep, store)
    assert done.kept


def test_tables_and_report_mark_it(raw: Raw, trained: Any) -> None:
    raw["estimators"]["plain"] = {"estimator": "knob", "knob": 1.0}
    sweep, store = trained(raw)
    attribute(sweep, store)
    rows = {row.estimator: row for row in as_rows(score(sweep, store)) if row.metric == "lds"}
    assert {label: row.tuned for label, row in rows.items()} == {"knob": "knob = 1", "plain": ""}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(leaderboard(score(sweep, store)))
    terminal, page = console.export_text(), report(sweep, store).read_text()
    for shown in (terminal, page, scores_html(score(sweep, store))):
        assert "knob (tuned)" in shown
        assert "plain (tuned)" not in shown
        assert "(tuned) options chosen by fitting runs: knob (knob = 1)" in shown
    assert "knob, tuned: knob = 1, of 4 values by 60 subsets of fit" in page


def test_one_that_is_fitted_on_the_design_is_judged_by_subsets_that_it_has_not_seen(raw: Raw, trained: Any) -> None:
    raw["estimators"] = {"fitted": {"tune": {"knob": GRID}}}
    sweep, store = trained(raw)
    _, kept = only(sweep, store)
    found = Findings.from_json(kept.details).tuning
    assert found is not None
    assert (found.held_out, found.subsets, dict(found.chosen)) == (True, 15, {"knob": 1.0})
    *during, last = Fitted.seen
    assert len(during) == len(GRID)
    judged = set(range(tuning.EVERY - 1, 60, tuning.EVERY))
    for runs in during:
        assert set(runs.subsets.tolist()) == set(range(60)) - judged
    assert set(last.subsets.tolist()) == set(range(60)), "what is chosen is fitted on all of them"
    assert kept.models == len(last.subsets)


def test_a_mask_that_a_design_repeats_is_on_one_side_only(raw: Raw, trained: Any, tmp_path: Any) -> None:
    masks = np.random.default_rng(1).random((10, N)) < 0.5
    np.save(tmp_path / "masks.npy", np.concatenate([masks, masks[::-1]]))
    raw["designs"] = {"fit": {"kind": "explicit", "masks": str(tmp_path / "masks.npy")}}
    raw["estimators"] = {"fitted": {"tune": {"knob": GRID}}}
    _, kept = only(*trained(raw))
    found = Findings.from_json(kept.details).tuning
    assert found is not None
    fitted, every = ({mask.tobytes() for mask in Fitted.seen[place].masks} for place in (0, -1))
    assert len(every) == 10
    assert len(fitted) == 5, "the five masks that choose are fitted on under neither of their numbers"


def test_a_flat_score_chooses_nothing_and_that_is_said(raw: Raw, trained: Any) -> None:
    raw["estimators"] = {"knob": {"tune": {"knob": [1.0, 1.0 + 1e-12]}}}
    done, kept = only(*trained(raw))
    assert kept.options == {"knob": 1.0}
    assert "nothing was chosen by them, for all values have the same LDS there" in done.notes[0]
    assert "it is the first one" in done.notes[0]


def test_what_cannot_be_told_apart_is_said(raw: Raw, trained: Any) -> None:
    raw["task"]["arguments"]["noise"] = 100.0
    raw["estimators"]["knob"]["tune"]["knob"] = [1.0, 1.2]
    done, _ = only(*trained(raw))
    assert "the best cannot be told from the worst" in done.notes[0]


@pytest.mark.parametrize(("grid", "end"), [([1.0, 3.0, 10.0], "smallest"), ([0.1, 0.3, 1.0], "largest")])
def test_the_end_of_the_grid_is_said(raw: Raw, trained: Any, grid: list[float], end: str) -> None:
    raw["estimators"]["knob"]["tune"]["knob"] = grid
    done, _ = only(*trained(raw))
    assert f"knob is the {end} of its grid: others may be better" in done.notes[0]


def test_a_value_with_which_nothing_can_be_computed_is_left_out_and_said(raw: Raw, trained: Any) -> None:
    raw["estimators"]["knob"]["tune"]["knob"] = [0.0, 1.0, 3.0, -1.0]
    sweep, store = trained(raw)
    done, kept = only(sweep, store)
    assert kept.options == {"knob": 1.0}
    assert "2 left out, the first knob = 0: the knob is at its stop" in done.notes[0]
    found = Findings.from_json(json.loads(json.dumps(kept.details))).tuning
    assert found is not None
    assert [bool(one.why) for one in found.tried] == [True, False, False, True]


def test_where_nothing_can_be_computed_that_is_the_error(raw: Raw, trained: Any) -> None:
    raw["estimators"]["knob"]["tune"]["knob"] = [0.0, -1.0]
    (done,) = attribute(*trained(raw))
    assert done.error == "estimators.knob: tune: nothing can be computed with knob = 0: the knob is at its stop"


@pytest.mark.parametrize("name", ["knob", "fitted"])
def test_an_interrupted_tuning_goes_on_where_it_was(
    raw: Raw, trained: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    raw["estimators"] = {name: {"tune": {"knob": GRID}}}
    sweep, store = trained(raw)
    _, whole = only(sweep, store)
    asked: list[float] = []
    kind = {"knob": Knob, "fitted": Fitted}[name]
    attributed = kind.attribute

    def counted(self: Any, evidence: Evidence) -> Attribution:
        asked.append(self.knob)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return attributed(self, evidence)

    monkeypatch.setattr(kind, "attribute", counted)
    with pytest.raises(KeyboardInterrupt):
        attribute(sweep, store, again=True)
    (done,) = attribute(sweep, store, again=True)
    assert not done.error
    assert asked[:3] == GRID[:3], "killed in the third"
    assert asked[3:5] == GRID[2:], "the first two are not computed again"
    assert asked[5:] == ([] if name == "knob" else [1.0]), "what was chosen is fitted on everything"
    goes_on = read_attributes_of(sweep.paths, name)
    one, other = (told.details["tuning"] for told in (whole, goes_on))
    assert one["chosen"] == other["chosen"] == {"knob": 1.0}
    assert [tried["lds"] for tried in one["tried"]] == [tried["lds"] for tried in other["tried"]]
    assert (whole.fitted_on, whole.models) == (goes_on.fitted_on, goes_on.models)
    assert not sweep.paths.pieces.exists(), "nothing is left of it"


def test_a_damaged_trial_is_computed_anew(raw: Raw, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, store = trained(raw)
    attributed, asked = Knob.attribute, []

    def counted(self: Any, evidence: Evidence) -> Attribution:
        asked.append(self.knob)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return attributed(self, evidence)

    monkeypatch.setattr(Knob, "attribute", counted)
    with pytest.raises(KeyboardInterrupt):
        attribute(sweep, store)
    for values in sweep.paths.pieces.rglob("values.npy"):
        content = values.read_bytes()
        values.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said: list[str] = []
    attribute(sweep, store, say=said.append)
    assert asked[3:] == GRID
    assert sum("is damaged: it is computed anew" in line for line in said) == 2


def test_too_few_subsets_are_refused(raw: Raw, trained: Any) -> None:
    raw["designs"]["fit"]["subsets"] = 7
    raw["estimators"] = {"fitted": {"tune": {"knob": GRID}}}
    (done,) = attribute(*trained(raw))
    assert done.error == (
        "estimators.fitted: tune: needs two finished subsets of fit to choose by (one in 4 of those that it is fitted on), "
        "found 1 of 7 in all"
    )


@pytest.mark.parametrize(
    ("designs", "tune_on", "message"),
    [
        (
            {"heldout": {"kind": "subsets", "subsets": 9, "purpose": "score"}},
            None,
            "there is no such design; add one of purpose fit",
        ),
        (
            {"a": {"kind": "subsets", "subsets": 9}, "b": {"kind": "bernoulli", "subsets": 9}},
            None,
            "several designs can serve (a, b)",
        ),
        (
            {"a": {"kind": "subsets", "subsets": 9}, "judges": {"kind": "subsets", "subsets": 9, "purpose": "score"}},
            "judges",
            "tune_on: 'judges' is not a design that can serve here",
        ),
    ],
)
def test_designs_that_cannot_choose_are_refused_before_training(
    raw: Raw, make_sweep: Any, designs: Raw, tune_on: str | None, message: str
) -> None:
    raw["designs"] = designs
    raw["estimators"]["knob"]["tune_on"] = tune_on
    with pytest.raises(ConfigError) as refused:
        check(make_sweep(raw))
    assert str(refused.value).startswith("estimators.knob.tune")
    assert message in str(refused.value)


def test_every_value_is_checked_before_training(tiny: Raw, make_sweep: Any) -> None:
    tiny["measures"] = ["margin", "correct"]
    tiny["estimators"] = {"influence": {"measure": "correct", "tune": {"damping": [0.1, 0.2]}}}
    with pytest.raises(ConfigError, match=r"estimators\.influence: .*correct.* \(tune: damping = 0\.1\)"):
        check(make_sweep(tiny))
