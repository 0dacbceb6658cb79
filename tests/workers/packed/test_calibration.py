import json
import threading

import pytest

from workers import Recipe
from workers.errors import ConfigError
from workers.packed import calibration
from workers.packed.calibration import strategy_of
from workers.packed.strategy import Strategy

RECIPE = Recipe(lr=0.05, batch_size=8, epochs=2)


def test_an_explicit_width_or_path_is_obeyed(zoo):
    chain, other = zoo(RECIPE, "relu"), zoo(RECIPE, "gelu")
    assert strategy_of(chain, "cpu", width=1).method == "alone"
    assert strategy_of(chain, "cpu", width=5).method == "resident"
    assert (strategy_of(other, "cpu", width=5).method, strategy_of(other, "cpu", width=5).width) == ("stacked", 5)
    assert (strategy_of(chain, "cpu", 3, "stacked").method, strategy_of(chain, "cpu", 3, "stacked").width) == (
        "stacked",
        3,
    )
    assert strategy_of(chain, "cpu", method="alone").method == "alone"
    with pytest.raises(ConfigError, match="needs a chain of Linear layers"):
        strategy_of(other, "cpu", method="resident")


def test_the_choice_is_measured_once_and_kept(zoo, cache_folder, monkeypatch):
    plan = strategy_of(zoo(RECIPE, "relu"), "cpu")
    (file,) = cache_folder.glob("packing/*.json")
    assert plan.method in ("resident", "alone")
    assert "times as fast" in plan.reason
    assert Strategy.from_json(json.loads(file.read_text())) == plan
    monkeypatch.setattr(calibration, "fastest", lambda *_: pytest.fail("measured again"))
    assert strategy_of(zoo(RECIPE, "relu"), "cpu") == plan


def test_another_task_has_another_choice(zoo, cache_folder):
    for architecture, recipe in (
        ("relu", RECIPE),
        ("linear", RECIPE),
        ("relu", Recipe(lr=0.05, batch_size=4, epochs=2)),
    ):
        strategy_of(zoo(recipe, architecture), "cpu")
    assert len(list(cache_folder.glob("packing/*.json"))) == 3


@pytest.mark.parametrize(("width", "measured"), [(1, [None]), (8, [None, 4])])
def test_packs_of_few_are_measured_only_where_lockstep_of_more_is_faster(
    zoo, cache_folder, monkeypatch, width, measured
):
    asked = []

    def fastest(task, device, pack):
        asked.append(pack)
        return Strategy("stacked" if width > 1 else "alone", width, False, "")

    monkeypatch.setattr(calibration, "fastest", fastest)
    for pack in (None, 4, 4):
        assert strategy_of(zoo(RECIPE, "gelu"), "cpu", pack=pack).width == width
    assert asked == measured


def test_the_first_of_two_workers_decides(zoo, cache_folder, monkeypatch):
    together = threading.Barrier(2)
    names = iter(("one", "other"))

    def measured(task, device, pack):
        name = next(names)
        together.wait()
        return Strategy("alone", 1, False, name)

    monkeypatch.setattr(calibration, "fastest", measured)
    task, found = zoo(RECIPE, "relu"), []
    workers = [threading.Thread(target=lambda: found.append(strategy_of(task, "cpu"))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found[0] == found[1]
    assert [file.suffix for file in (cache_folder / "packing").iterdir()] == [".json"]


def test_a_folder_that_cannot_be_written_is_named(zoo, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COUNTERFACTORY_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="COUNTERFACTORY_CACHE"):
        strategy_of(zoo(RECIPE, "relu"), "cpu")


def test_a_cache_that_refuses_leaves_the_measured_way(zoo, cache_folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(calibration, "fastest", lambda *_: Strategy("resident", 1, False, "twice as fast"))
    monkeypatch.setattr(calibration.os, "link", full)
    found = strategy_of(zoo(RECIPE, "relu"), "cpu")
    assert (found.method, found.failed) == ("resident", False)
    assert found.reason.startswith("twice as fast; not kept for later sweeps, ")
    assert found.reason.endswith("packing: No space left on device")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"width": 1}'])
def test_a_choice_that_cannot_be_read_is_measured_anew(zoo, cache_folder, content):
    first = strategy_of(zoo(RECIPE, "relu"), "cpu")
    (file,) = cache_folder.glob("packing/*.json")
    file.write_text(content)
    assert strategy_of(zoo(RECIPE, "relu"), "cpu").width == first.width
    assert Strategy.from_json(json.loads(file.read_text())).width == first.width


def test_a_task_that_fails_is_left_to_its_runs(zoo, cache_folder):
    class Broken(zoo):
        def loss(self, outputs, targets):
            raise ArithmeticError("no loss today")

    plan = strategy_of(Broken(RECIPE, "relu"), "cpu")
    assert plan.method == "alone"
    assert "no loss today" in plan.reason
    assert list(cache_folder.glob("packing/*")) == []
