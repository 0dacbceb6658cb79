"""An estimator of one's own, in a file: found, computed, noticed when it changes, and never run by whoever only looks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator
from estimators import registry
from estimators.testing import check_estimator
from orchestrator.config import yaml_format
from orchestrator.scoring.table import read_score_rows
from orchestrator.stages.attribute import attribute
from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.store.attributions import read_attributes_of
from orchestrator.store.run_store import RunStore
from orchestrator.sweeps.request import requested
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "your-own-estimator.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the page's file of that name."""
    found = re.search(rf"```\w+\n(# {re.escape(name)}\n.*?)```", PAGE, re.S)
    assert found
    return found[1]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """The page's files, in a folder; return the configuration."""
    for name in ("my_estimator.py", "agreement.yaml"):
        (tmp_path / name).write_text(block(name))
    return tmp_path / "agreement.yaml"


@pytest.fixture
def made(page: Path, inline_pool: Any, command: Any) -> Path:
    """The page's sweep, run to its end; return its folder."""
    sweep = requested(str(page), page.parent / "sweep", {"pack": 16})
    with prepare(sweep) as store:
        retrain(sweep, store, pool=inline_pool(sweep))
    ended = command("run", page, "--out", page.parent / "sweep")
    assert ended.code == 0, ended.err
    return page.parent / "sweep"


def test_the_page_is_run(made: Path) -> None:
    lds = {row.estimator: row.value for row in read_score_rows(made / "scores.parquet") if row.metric == "lds"}
    assert set(lds) == {"agreement", "difference_in_means"}
    kept = orchestrator.open_sweep(made).attribution("agreement")
    assert (kept.attrs["estimator"], kept.attrs["options"]) == ("my_estimator.py:Agreement", '{"quantile": 0.4}')
    with RunStore.open(Sweep.at(made).paths) as store:
        masks, outputs = store.masks("fit"), store.outputs("fit", "margin")
    high = outputs > np.quantile(outputs.astype(float), 0.4, axis=0)
    expected = [[high[masks[:, i], q].mean() - high[~masks[:, i], q].mean() for q in range(8)] for i in range(60)]
    np.testing.assert_allclose(kept.values, expected, atol=1e-6)
    assert "gradients" not in read_attributes_of(Sweep.at(made).paths, "agreement").needs


def test_the_page_s_class_keeps_the_contract(page: Path) -> None:
    check_estimator(registry.load("my_estimator.py:Agreement", page.parent)(quantile=0.4))  # type: ignore[call-arg]


def test_a_changed_file_is_noticed_and_only_its_attribution_computed_anew(made: Path, page: Path, command: Any) -> None:
    assert command("status", made).out.count("stale") == 0
    assert "agreement (from 40 models, kept)" in command("attribute", made).err
    file = page.with_name("my_estimator.py")
    file.write_text(file.read_text().replace("inside - outside", "2 * (inside - outside)"))
    assert "stale: agreement, its source my_estimator.py changed" in command("status", made).out
    before = orchestrator.open_sweep(made).attribution("agreement").values
    said = command("attribute", made).err
    assert "the one that was kept is stale: its source my_estimator.py changed" in said
    assert "difference_in_means (from 40 models, kept)" in said
    np.testing.assert_allclose(orchestrator.open_sweep(made).attribution("agreement").values, 2 * before, atol=1e-6)
    assert "runs to train" not in command("retrain", made).err


def test_a_changed_sibling_is_noticed(made: Path, page: Path, command: Any) -> None:
    file, helper = page.with_name("my_estimator.py"), page.with_name("helper.py")
    helper.write_text("TWO = 2\n")
    file.write_text(file.read_text().replace("import numpy as np", "import helper\nimport numpy as np"))
    command("attribute", made)
    assert command("status", made).out.count("stale:") == 0
    helper.write_text("TWO = 3\n")
    assert "stale: agreement, its source helper.py changed" in command("status", made).out


LOOKING = [
    ("status", "DIR"),
    ("verify", "DIR"),
    ("report", "DIR"),
    ("score", "DIR"),
    ("score", "DIR", "--attributions", "mine.npy"),
    ("export", "DIR", "--to", "out.npz"),
]


@pytest.mark.parametrize("state", ["a bomb", "gone"])
def test_who_looks_never_imports_the_file(
    made: Path, page: Path, command: Any, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.chdir(page.parent)
    np.save("mine.npy", np.random.default_rng(0).normal(size=(60, 8)))
    file = page.with_name("my_estimator.py")
    file.write_text("open('ran', 'w')\n")
    if state == "gone":
        file.unlink()
    for arguments in LOOKING:
        ended = command(*(part.replace("DIR", str(made)) for part in arguments))
        assert ended.code == 0, ended.err
    sweep = orchestrator.open_sweep(made)
    sweep.attribution("agreement"), sweep.scores(), sweep._repr_html_(), sweep.top(0, "agreement")
    assert sweep.status().absent == (
        {}
        if state == "a bomb"
        else {
            "estimators.agreement": f"there is no file {file}: what it gave is kept and shown, and cannot be computed again; "
            "put it back"
        }
    )
    assert not Path("ran").exists()


def test_whose_code_is_run_is_said_of_a_sweep_made_elsewhere(
    made: Path, page: Path, command: Any, tmp_path: Path, rewrite: Any
) -> None:
    assert "about to run the code" not in command("attribute", made, "--again").err
    moved = Path(shutil.copytree(made, tmp_path / "moved"))
    said = command("attribute", moved).err
    assert "was made elsewhere (by " in said
    assert f"about to run the code of {page.with_name('my_estimator.py')}" in said
    theirs = tmp_path / "theirs.py"
    theirs.write_text(page.with_name("my_estimator.py").read_text())
    sections = yaml_format.load((made / "config.yaml").read_text())["estimators"]
    sections["agreement"]["estimator"] = f"{theirs}:Agreement"
    rewrite(made, estimators=sections)
    said = command("attribute", made).err
    assert f"about to run the code of {theirs}" in said, "the seal is of the file"
    assert "was made here with other estimators; about" in said


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        ("my_estimator.py:Agreemnt", "my_estimator.py has no 'Agreemnt': did you mean Agreement? (known: Agreement)"),
        ("my_estimator.py:np", "my_estimator.py:np: expected a subclass of Estimator that has `attribute`"),
        ("my_estimator.py:Estimator", "expected a subclass of Estimator that has `attribute`"),
        ("nowhere.py:Agreement", "there is no file"),
        ("my_estimator.py:", "estimator 'my_estimator.py:': expected path/to/file.py:attribute or module:attribute"),
        ("nowhere_at_all:A", "there is no module 'nowhere_at_all'"),
    ],
)
def test_what_is_no_estimator_is_one_line(page: Path, refused: Any, estimator: str, said: str) -> None:
    line = refused("plan", page, f"estimators.agreement.estimator={estimator!r}")
    assert said in line
    assert "estimators.agreement" in line


def test_options_are_those_of_the_class(page: Path, refused: Any) -> None:
    assert "unknown key 'estimators.agreement.quantil': did you mean quantile?" in refused(
        "plan", page, "estimators.agreement.quantil=0.3"
    )
    assert "estimators.agreement.quantile: input should be less than 1 (found 2)" in refused(
        "plan", page, "estimators.agreement.quantile=2"
    )


def test_a_module_is_named_as_a_file_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(page.parent)
    config = requested(str(page), overrides={"estimators.agreement.estimator": "my_estimator:Agreement"}).config
    section = config.estimators["agreement"]
    assert type(section.options).__name__ == "Agreement"
    assert (section.file, section.code) == (None, "module my_estimator")
    with pytest.raises(ConfigError, match="unknown estimator 'my_estimator'"):
        registry.find("my_estimator")


def test_a_design_that_it_was_given_no_runs_of_is_refused(made: Path, page: Path) -> None:
    file = page.with_name("my_estimator.py")
    file.write_text(file.read_text().replace("(runs.design,)", "('heldout',)"))
    sweep = Sweep.at(made)
    with RunStore.open(sweep.paths, write=True) as store:
        errors = [one.error for one in attribute(sweep, store) if one.error]
    assert errors == ["estimators.agreement: returned fitted_on 'heldout', which it was given no runs of: known: fit"]


def test_an_own_estimator_whose_code_fails_is_one_failure(made: Path, page: Path) -> None:
    file = page.with_name("my_estimator.py")
    file.write_text(file.read_text().replace("high = (outputs", "high = (1 / 0 + outputs"))
    sweep = Sweep.at(made)
    with RunStore.open(sweep.paths, write=True) as store:
        done = {one.estimator: one for one in attribute(sweep, store)}
    assert "estimators.agreement: ZeroDivisionError" in done["agreement"].error
    assert not done["difference_in_means"].error
