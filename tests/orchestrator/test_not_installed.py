"""A sweep stays readable where the package that gave an estimator, a metric or a design is not installed, or fails to import."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import orchestrator
from estimators import registry as estimators
from orchestrator.catalog.registry import GROUPS
from orchestrator.scoring import registry as metrics
from orchestrator.scoring.table import read_score_rows
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.report import report
from orchestrator.stages.retrain import retrain
from orchestrator.stages.score import score
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.sweep import Sweep
from workers import plugins

OTHER_METHODS = '''
import math
from typing import Literal

import numpy as np

from estimators import Attribution, Estimator
from orchestrator.designs import Design
from orchestrator.scoring.metric import Metric, Quantity
from orchestrator.scoring.table import ScoreRow


class Mine(Estimator):
    """Numbers of nobody."""

    name = "mine"
    needs = frozenset({"subsets"})
    in_units = True

    def attribute(self, evidence):
        values = np.random.default_rng(0).normal(size=(evidence.n, evidence.t)).astype(np.float32)
        return Attribution(values, fitted_on=tuple(evidence.runs), models=6)


class Size(Metric):
    quantities = (Quantity("size", "mean size"),)

    def judge(self, sweep, store, judged):
        nan, value = math.nan, float(np.abs(judged.values).mean())
        return [ScoreRow(judged.label, "size", value, nan, nan, nan, judged.measure, "", store.t, 0, 0, nan, nan)]


class Thirds(Design):
    serves = frozenset({"subsets"})
    growth_keys = ("subsets",)
    kind: Literal["thirds"]
    subsets: int

    def count(self, context):
        return self.subsets

    def mask(self, index, context):
        return np.random.default_rng([context.root, index]).random(context.n) < 1 / 3


class Repeated(Thirds):
    """The held-out subsets once more."""

    growth_keys = ()
    kind: Literal["repeated"]
    subsets: int = 0
    keeps_its_side = True

    @property
    def follows(self):
        return "heldout"

    def count(self, context):
        return context.designs["heldout"].subsets

    def mask(self, index, context):
        from dataclasses import replace

        return context.designs["heldout"].mask(index, replace(context, name="heldout"))
'''
OFFERED = """
[counterfactory.estimators]
mine = other_methods:Mine
[counterfactory.metrics]
size = other_methods:Size
[counterfactory.designs]
thirds = other_methods:Thirds
repeated = other_methods:Repeated
"""
INSTALL = "install other-methods 1.2"


def forget_registries() -> None:
    for cached in (plugins._of_all_packages, plugins._imported, estimators.names, estimators.find, metrics._found):
        cached.cache_clear()


@pytest.fixture
def uninstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a package of an estimator, a metric and two designs; return what uninstalls it."""
    site = tmp_path / "site"
    about = site / "other_methods-1.2.dist-info"
    about.mkdir(parents=True)
    (site / "other_methods.py").write_text(OTHER_METHODS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-methods\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(OFFERED)
    monkeypatch.syspath_prepend(site)
    forget_registries()

    def remove() -> None:
        sys.path.remove(str(site))
        sys.modules.pop("other_methods", None)
        forget_registries()

    yield remove
    sys.modules.pop("other_methods", None)
    forget_registries()


@pytest.fixture
def spoil(uninstall: Callable[[], None], tmp_path: Path) -> Callable[[str], None]:
    """Return what gives the installed package another source."""

    def write(source: str) -> None:
        (tmp_path / "site" / "other_methods.py").write_text(source)
        sys.modules.pop("other_methods", None)
        importlib.invalidate_caches()
        forget_registries()

    return write


@pytest.fixture
def raw(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["designs"] = {
        "thirds": {"kind": "thirds", "subsets": 6},
        "heldout": {"kind": "subsets", "alpha": 0.5, "subsets": 6, "seeds": 2, "purpose": "score"},
        "again": {"kind": "repeated", "seeds": 2, "purpose": "score"},
    }
    tiny["estimators"] = {"random": {}, "mine": {}}
    return tiny


def attributed(sweep: Sweep, inline_pool: Any) -> Path:
    """Run a sweep to its attributions; return its folder."""
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
        attribute(sweep, store)
    return sweep.paths.root


def finished(sweep: Sweep, inline_pool: Any) -> Path:
    """Run a sweep to its report; return its folder."""
    attributed(sweep, inline_pool)
    with RunStore.open(sweep.paths, write=True) as store:
        score(sweep, store)
        report(sweep, store)
    return sweep.paths.root


def table(folder: Path) -> dict[tuple[str, str], str]:
    """Return the scores by estimator and metric, each as text."""
    rows = read_score_rows(folder / "scores.parquet")
    return {(row.estimator, row.metric): f"{row.value:.6g} {row.low:.6g} {row.high:.6g}" for row in rows}


def look(folder: Path, command: Any, tmp_path: Path) -> dict[tuple[object, ...], str]:
    """Have every command look at the sweep; return what each said on stderr."""
    np.save(tmp_path / "their.npy", np.random.default_rng(1).normal(size=(60, 8)))
    said: dict[tuple[object, ...], str] = {}
    for arguments in (
        ("status", folder),
        ("verify", folder),
        ("export", folder, "--to", tmp_path / "out.npz"),
        ("score", folder, "--attributions", tmp_path / "their.npy"),
        ("score", folder),
        ("report", folder),
    ):
        ended = command(*arguments)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err
        said[arguments] = ended.err
    return said


def test_everything_that_looks_shows_what_was_computed(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None], command: Any, tmp_path: Path
) -> None:
    folder = finished(make_sweep(raw), inline_pool)
    scored, page = table(folder), (folder / "report.html").read_text()
    assert {("mine", "lds"), ("mine", "slope"), ("mine", "size"), ("retraining", "seed_check")} <= set(scored)
    assert "Not here" not in page
    hidden = orchestrator.open_sweep(folder).status()
    assert hidden.absent == {}
    uninstall()
    look(folder, command, tmp_path)
    assert table(folder) == scored, "nothing that was scored is lost, and all that can be is scored as before"
    with np.load(tmp_path / "out.npz") as exported:
        assert {"attributions/mine", "thirds/masks"} <= set(exported)
    sweep = orchestrator.open_sweep(folder)
    assert sweep.status().absent.keys() == {"designs.thirds", "designs.again", "estimators.mine"}
    assert all(why.endswith(INSTALL) for why in sweep.status().absent.values())
    assert sweep.attribution("mine").sizes == {"example": 60, "query": 8}
    assert len(sweep.top(0, "mine")) == 20
    assert sweep.runs("thirds").sizes["run"] == 6
    assert sweep.designs == ("thirds", "heldout", "again")
    said = command("status", folder).out.replace("\n", " ")
    assert "estimator 'mine' is not installed here" in said
    now = (folder / "report.html").read_text()
    assert now.count("Not here") == 4
    assert "scores.size" in now
    assert f"{raw['name']}" in now


def test_identity_of_an_absent_design_is_what_it_was(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None]
) -> None:
    sweep = make_sweep(raw)
    folder = finished(sweep, inline_pool)
    uninstall()
    assert Sweep.at(folder).config.identity() == sweep.config.identity()


def test_scores_of_an_absent_metric_go_with_the_attribution_that_they_judged(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None], command: Any
) -> None:
    folder = finished(make_sweep(raw), inline_pool)
    uninstall()
    (folder / "attributions.zarr" / "mine").rename(folder / "gone")
    assert command("score", folder).code == 0
    assert ("mine", "size") not in table(folder)
    assert ("random", "size") in table(folder)


def test_a_configuration_that_names_it_no_more_goes_on(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None], command: Any, tmp_path: Path
) -> None:
    raw["designs"] = {"fit": {"kind": "subsets", "subsets": 6}, "heldout": raw["designs"]["heldout"]}
    raw["estimators"]["mine"] = {}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    folder = attributed(make_sweep(raw), inline_pool)
    uninstall()
    ended = command("run", tmp_path / "tiny.yaml", "--out", folder)
    assert (ended.code, "unknown estimator 'mine'" in ended.err) == (2, True)
    del raw["estimators"]["mine"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    ended = command("run", tmp_path / "tiny.yaml", "--out", folder)
    assert ended.code == 0, ended.err
    assert orchestrator.open_sweep(folder).attributions == ("mine", "random")
    raw["seed"] = 5
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    assert "(seed is 5 here and 0 there)" in command("run", tmp_path / "tiny.yaml", "--out", folder).err


@pytest.mark.parametrize("name", ["attribute", "retrain"])
def test_who_goes_on_is_refused_with_the_remedy(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None], refused: Any, name: str
) -> None:
    raw["designs"] = {"fit": {"kind": "subsets", "subsets": 6}}
    folder = attributed(make_sweep(raw), inline_pool)
    uninstall()
    said = refused(name, folder)
    assert f"{folder}/config.yaml: estimators.mine: estimator 'mine' is not installed here" in said
    assert f"{INSTALL}, or go on by `counterfactory run CONFIG --out {folder}`" in said


def test_runs_of_an_absent_design_are_not_drawn_again(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, uninstall: Callable[[], None], refused: Any
) -> None:
    folder = finished(make_sweep(raw), inline_pool)
    uninstall()
    assert "designs.thirds.kind: 'thirds' is not installed here" in refused("verify", folder, "--rerun", 1)
    assert "designs.thirds: kind 'thirds' is not installed here" in refused("retrain", folder)


NO_DEPENDENCY = "import no_such_package\n" + OTHER_METHODS
ERROR = "ModuleNotFoundError: No module named 'no_such_package'"


def fault(name: str, what: str, group: str) -> str:
    return (
        f"package other-methods 1.2: its entry point `{name} = other_methods:{what}` of counterfactory.{group} "
        f"cannot be loaded: {ERROR}"
    )


def test_a_package_that_fails_to_import_keeps_nobody_from_looking(
    raw: dict[str, Any], make_sweep: Any, inline_pool: Any, spoil: Callable[[str], None], command: Any, tmp_path: Path
) -> None:
    folder = finished(make_sweep(raw), inline_pool)
    scored = table(folder)
    spoil(NO_DEPENDENCY)
    said = look(folder, command, tmp_path)
    assert table(folder) == scored, "the scores of a metric that cannot be loaded are kept"
    size = f"metrics.size: {fault('size', 'Size', 'metrics')}: its scores are not taken; mend the package\n"
    assert said["score", folder, "--attributions", tmp_path / "their.npy"] == size
    assert size in said["score", folder]
    assert size in said["report", folder]
    why = fault("mine", "Mine", "estimators")
    mine = f"estimators.mine: estimator 'mine' cannot be loaded here ({why}): what it gave is kept"
    assert mine in said["score", folder]
    absent = orchestrator.open_sweep(folder).status().absent
    assert absent.keys() == {"designs.thirds", "designs.again", "estimators.mine"}
    assert absent["designs.thirds"].startswith(
        f"kind 'thirds' cannot be loaded here ({fault('thirds', 'Thirds', 'designs')})"
    )
    assert all(why.endswith("; mend the package") for why in absent.values())
    page = (folder / "report.html").read_text()
    assert "metrics.size" in page
    assert page.count("no_such_package") == 4
    with pytest.warns(UserWarning, match=r"^metrics\.size: package other-methods 1\.2"):
        orchestrator.score(folder, np.zeros((60, 8)))


def test_who_names_what_cannot_be_loaded_gets_one_line_and_others_go_on(
    tiny: dict[str, Any], tmp_path: Path, spoil: Callable[[str], None], refused: Any, command: Any
) -> None:
    spoil("def broken(:\n")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    out = ("--out", tmp_path / "sweep")
    line = refused("run", tmp_path / "tiny.yaml", "estimators.mine={}", *out)
    assert line.startswith(
        "error: override 'estimators.mine': estimators.mine: package other-methods 1.2: its entry point `mine = "
    )
    assert "cannot be loaded: SyntaxError: " in line
    line = refused("run", tmp_path / "tiny.yaml", "designs.fit={kind: thirds, subsets: 3}", *out)
    assert line.startswith(
        "error: override 'designs.fit': designs.fit: package other-methods 1.2: its entry point `thirds = "
    )
    ended = command("run", tmp_path / "tiny.yaml", *out)
    assert ended.code == 0, ended.err
    assert ended.err.count("cannot be loaded: SyntaxError") == 1, "of the metric, which nobody names"


def test_lists_say_what_cannot_be_loaded_and_why(spoil: Callable[[str], None], command: Any, refused: Any) -> None:
    spoil(NO_DEPENDENCY)
    for group, name, what in (("estimators", "mine", "Mine"), ("designs", "thirds", "Thirds")):
        rows = {one["name"]: one["summary"] for one in json.loads(command("list", group, "--json").out)}
        assert rows.pop(name) == f"cannot be loaded: {fault(name, what, group)}"
        assert not [row for row, summary in rows.items() if "cannot be loaded" in summary and row != "repeated"]
        assert refused("describe", name) == "error: " + fault(name, what, group)
        told = {entry.name: entry.summary for entry in GROUPS[group].entries()}
        assert told[name] == f"cannot be loaded: {fault(name, what, group)}"
    assert "needs" in command("describe", "datamodel").out
    assert "datamodel" in command("describe", "bernoulli").out
    made = json.loads(command("schema").out)
    assert made["properties"]["estimators"]["properties"]["mine"] == {
        "description": fault("mine", "Mine", "estimators")
    }
    assert "thirds" not in made["properties"]["designs"]["additionalProperties"]["discriminator"]["mapping"]


def test_what_loads_and_is_none_is_said_likewise(spoil: Callable[[str], None], refused: Any, command: Any) -> None:
    spoil("Mine = Thirds = Repeated = Size = object\n")
    assert "cannot be loaded: expected a subclass of Estimator that has `attribute`, found" in refused(
        "describe", "mine"
    )
    assert "cannot be loaded: expected a subclass of Design, found" in refused("describe", "thirds")
    assert "expected a subclass of Metric that has quantities" in metrics.unloadable()["size"]
    assert "lds" in metrics.quantities()


@pytest.mark.parametrize(("name", "key"), [("attribute", "estimators.mine"), ("retrain", "designs.thirds")])
def test_who_goes_on_where_it_cannot_be_loaded_is_refused(
    raw: dict[str, Any],
    make_sweep: Any,
    inline_pool: Any,
    spoil: Callable[[str], None],
    refused: Any,
    name: str,
    key: str,
) -> None:
    if name == "attribute":
        raw["designs"] = {"fit": {"kind": "subsets", "subsets": 6}}
    folder = attributed(make_sweep(raw), inline_pool)
    spoil(NO_DEPENDENCY)
    said = refused(name, folder)
    assert f"{key}: " in said
    assert "cannot be loaded here (package other-methods 1.2: its entry point" in said
    assert ERROR in said
