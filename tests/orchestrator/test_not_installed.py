"""A sweep stays readable where the package that gave an estimator, a metric or a design is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import orchestrator
from estimators import registry as estimators
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
    for cached in (plugins._of_all_packages, estimators.names, estimators.find, metrics._found):
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
    np.save(tmp_path / "their.npy", np.random.default_rng(1).normal(size=(60, 8)))
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
