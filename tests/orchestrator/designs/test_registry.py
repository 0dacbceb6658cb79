"""A design is one class and one registration: one from outside goes through every stage."""

import ast
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import Field

from estimators.contract import Need
from orchestrator.attribution.early_stopping import watched
from orchestrator.config.json_schema import schema
from orchestrator.config.schema import Config
from orchestrator.designs import Context, Design, ErrorForecast, find, kinds, register, registry
from orchestrator.designs.keys import generator_of
from orchestrator.forecast.standard_error import Trial, expected_errors
from orchestrator.stages.attribute import attribute
from orchestrator.stages.export import Request, export
from orchestrator.stages.forecast import settle
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.stages.status import status
from orchestrator.stages.verify import check_rows, rerun
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError
from workers.packs import PackTrainer

Raw = dict[str, Any]
Make = Callable[[Raw], Sweep]
ROOT = Path(__file__).parents[3]
N = 16


class Halves(Design):
    """Random halves of the examples, each followed by its complement."""

    serves: ClassVar[frozenset[Need]] = frozenset({"subsets"})
    watched_by: ClassVar[str | None] = "difference_in_means"
    error_forecast: ClassVar[ErrorForecast | None] = ErrorForecast.RANDOM_SUBSETS
    measured_by: ClassVar[frozenset[str]] = frozenset({"difference_in_means"})
    growth_keys: ClassVar[tuple[str, ...]] = ("pairs",)

    kind: Literal["halves"]
    pairs: int = Field(ge=1, description="number of halves that are drawn")

    def count(self, context: Context) -> int:
        return 2 * self.pairs

    def mask(self, index: int, context: Context) -> NDArray[np.bool_]:
        order = generator_of(context.root, context.name, index // 2).permutation(context.n)
        return (order < context.n // 2) ^ bool(index % 2)


@pytest.fixture(autouse=True)
def halves() -> Iterator[type[Halves]]:
    yield register(Halves)
    del registry.registered["halves"]


@pytest.fixture
def raw(game: Raw) -> Raw:
    """A sweep whose fitting design comes from outside."""
    game["task"]["arguments"] = {"n": N, "noise": 0.1}
    game["designs"] = {
        "fit": {"kind": "halves", "pairs": 20},
        "heldout": {"kind": "subsets", "subsets": 8, "seeds": 2, "purpose": "score"},
    }
    game["estimators"] = {"difference_in_means": {}}
    return game


def test_it_goes_through_every_stage(raw: Raw, make_sweep: Make, inline_pool: Any, tmp_path: Path) -> None:
    sweep, expected = settle(make_sweep(raw), always=True)
    assert expected is not None
    assert {one.design: one.runs for one in expected.designs} == {"fit": 40, "heldout": 16}
    assert expected.designs[0].standard_error > 0
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        masks = store.masks("fit")
        assert np.array_equal(masks[::2], ~masks[1::2])
        made = attribute(sweep, store)
        assert [(one.estimator, one.error, one.models) for one in made] == [("difference_in_means", "", 40)]
        scores = score(sweep, store)
        assert set(scores[scores.metric == "lds"].estimator) == {"difference_in_means"}
        assert "halves" in report(sweep, store).read_text(encoding="utf-8")
        assert rerun(sweep, store, 3, pool=inline_pool(sweep))[0].equal
    looked_at = Sweep.at(sweep.paths.root)
    with RunStore.open(looked_at.paths) as store:
        assert status(looked_at, store).designs["fit"] == {"done": 40, "failed": 0, "pending": 0}
        assert check_rows(store) == []
        assert export(Request(looked_at, store, tmp_path / "sweep.npz")).count


def test_it_is_stopped_by_its_own_values(raw: Raw, make_sweep: Make, inline_pool: Any) -> None:
    raw["stop"] = {"fit": {"when": "standard_error < 10", "every": 8}}
    sweep = make_sweep(raw)
    assert watched(sweep.config, "fit").name == "difference_in_means"
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        assert status(sweep, store).designs["fit"]["done"] < 40
        assert status(sweep, store).designs["fit"]["pending"] == 0


def test_it_grows_over_the_same_runs(raw: Raw, make_sweep: Make, inline_pool: Any) -> None:
    sweep = make_sweep(raw)
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        before = store.masks("fit")
    raw["designs"]["fit"]["pairs"] = 30
    grown = make_sweep(raw)
    assert grown.config.identity() == sweep.config.identity()
    with prepare(grown) as store:
        assert np.array_equal(store.masks("fit")[:40], before)
        assert status(grown, store).designs["fit"] == {"done": 40, "failed": 0, "pending": 20}


def test_its_subsets_are_kept_from_those_that_are_scored_on(raw: Raw, make_sweep: Make) -> None:
    raw["task"]["arguments"]["n"] = 6  # twenty halves in all
    with pytest.raises(ConfigError, match=r"^designs\.fit: its subset \d+ is also one of designs\.heldout"):
        _ = make_sweep(raw).plans


def test_an_error_that_nobody_can_foresee_is_not_forecast(
    raw: Raw, make_sweep: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(raw)
    trial = Trial(sweep, sweep.plans, sweep.plans["fit"], 20, PackTrainer(sweep.task))
    assert expected_errors(trial).attribution > 0
    monkeypatch.setattr(Halves, "error_forecast", None)
    assert np.isnan(expected_errors(trial).attribution)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"kind": "halvs", "pairs": 1}, "designs.fit.kind: unknown kind 'halvs': did you mean halves?"),
        ({"kind": "halves", "pairs": 1, "piars": 1}, "unknown key 'designs.fit.piars': did you mean pairs or purpose?"),
        ({"kind": "halves"}, "designs.fit.pairs: is missing"),
        ({"kind": "halves", "pairs": 0}, "designs.fit.pairs: input should be greater than or equal to 1 (found 0)"),
    ],
)
def test_its_mistakes_are_told_as_those_of_our_own(
    raw: Raw, make_config: Callable[[Raw], Config], section: Raw, said: str
) -> None:
    raw["designs"]["fit"] = section
    with pytest.raises(ConfigError) as caught:
        make_config(raw)
    assert str(caught.value).removeprefix("tiny.yaml: ").startswith(said)


def test_a_design_without_values_cannot_be_stopped(
    raw: Raw, make_config: Callable[[Raw], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Halves, "watched_by", None)
    raw["stop"] = {"fit": {"when": "runs > 3"}}
    with pytest.raises(ConfigError, match=r"stop\.fit: a design of kind 'halves' has no values to watch$"):
        make_config(raw)


def test_the_schema_describes_it() -> None:
    made = schema()
    designs = made["properties"]["designs"]["additionalProperties"]
    assert designs["discriminator"]["mapping"]["halves"] == "#/$defs/Halves"
    assert made["$defs"]["Halves"]["properties"]["pairs"]["description"] == "number of halves that are drawn"


def test_a_kind_is_registered_once_and_by_name() -> None:
    assert kinds()[-1] == "halves"
    assert find("halves") is register(Halves) is Halves

    class Taken(Halves):
        kind: Literal["full"]  # type: ignore[assignment]

    class Nameless(Halves):
        kind: str  # type: ignore[assignment]

    with pytest.raises(ConfigError, match=r"^Taken: there is a design of kind 'full' already$"):
        register(Taken)
    with pytest.raises(ConfigError, match=r"^Nameless: has no kind"):
        register(Nameless)


def test_a_class_defined_again_takes_the_place_of_the_first() -> None:
    again = type("Halves", (Halves,), {"__module__": Halves.__module__, "__annotations__": {}})
    assert again.__qualname__ == Halves.__qualname__
    assert register(again) is find("halves") is again


def test_a_package_offers_one_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("other_halves", "offered:Halves", registry.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Halves)
    monkeypatch.setattr(registry.plugins, "offered", lambda group: (entry,) if group == entry.group else ())
    assert "other_halves" in kinds()
    assert find("other_halves") is Halves
    with pytest.raises(ConfigError, match=r"^unknown kind of design 'other_halvs': did you mean other_halves"):
        find("other_halvs")


@pytest.mark.parametrize("kind", list(registry.BUILT_IN))
def test_our_own_are_registered_as_what_they_are(kind: str) -> None:
    assert find(kind).model_fields["kind"].annotation == Literal[kind]  # type: ignore[valid-type]


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the orchestrator that is no design."""
    for path in sorted((ROOT / "orchestrator").rglob("*.py")):
        if path.parent.name != "designs":
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def constants(node: ast.AST) -> set[Any]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_no_file_outside_asks_for_a_kind_by_name() -> None:
    """Neither by its class, nor by comparing `kind`, nor by a list of kinds: a design says itself what it can do."""
    homes = {where.partition(":")[0] for where in registry.BUILT_IN.values()}
    asked = []
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in homes:
                asked.append(f"{name}:{node.lineno} imports {node.module}")
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(isinstance(side, ast.Attribute) and side.attr == "kind" for side in sides) and constants(node):
                    asked.append(f"{name}:{node.lineno} compares a kind")
            if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
                elements = node.keys if isinstance(node, ast.Dict) else node.elts
                listed = {one.value for one in elements if isinstance(one, ast.Constant)} & set(registry.BUILT_IN)
                if len(listed) > 1:
                    asked.append(f"{name}:{node.lineno} lists {sorted(listed)}")
    assert asked == []
