import json
import threading

import pytest

from workers import Recipe
from workers.errors import ConfigError
from workers.packed import calibration
from workers.packed.calibration import plan_of
from workers.packed.plan import Plan

RECIPE = Recipe(lr=0.05, batch_size=8, epochs=2)


def test_an_explicit_width_or_path_is_obeyed(zoo):
    chain, other = zoo(RECIPE, "relu"), zoo(RECIPE, "gelu")
    assert plan_of(chain, "cpu", width=1).path == "alone"
    assert plan_of(chain, "cpu", width=5).path == "resident"
    assert (plan_of(other, "cpu", width=5).path, plan_of(other, "cpu", width=5).width) == ("stacked", 5)
    assert (plan_of(chain, "cpu", 3, "stacked").path, plan_of(chain, "cpu", 3, "stacked").width) == ("stacked", 3)
    assert plan_of(chain, "cpu", path="alone").path == "alone"
    with pytest.raises(ConfigError, match="needs a chain of Linear layers"):
        plan_of(other, "cpu", path="resident")


def test_the_choice_is_measured_once_and_kept(zoo, cache_folder, monkeypatch):
    plan = plan_of(zoo(RECIPE, "relu"), "cpu")
    (file,) = cache_folder.glob("packing/*.json")
    assert plan.path in ("resident", "alone")
    assert "times as fast" in plan.reason
    assert Plan(**json.loads(file.read_text())) == plan
    monkeypatch.setattr(calibration, "measure", lambda *_: pytest.fail("measured again"))
    assert plan_of(zoo(RECIPE, "relu"), "cpu") == plan


def test_another_task_has_another_choice(zoo, cache_folder):
    for architecture, recipe in (
        ("relu", RECIPE),
        ("linear", RECIPE),
        ("relu", Recipe(lr=0.05, batch_size=4, epochs=2)),
    ):
        plan_of(zoo(recipe, architecture), "cpu")
    assert len(list(cache_folder.glob("packing/*.json"))) == 3


def test_the_first_of_two_workers_decides(zoo, cache_folder, monkeypatch):
    together = threading.Barrier(2)
    names = iter(("one", "other"))

    def measured(task, device):
        name = next(names)
        together.wait()
        return Plan("alone", 1, False, name)

    monkeypatch.setattr(calibration, "measure", measured)
    task, found = zoo(RECIPE, "relu"), []
    workers = [threading.Thread(target=lambda: found.append(plan_of(task, "cpu"))) for _ in range(2)]
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
        plan_of(zoo(RECIPE, "relu"), "cpu")


def test_a_task_that_fails_is_left_to_its_runs(zoo, cache_folder):
    class Broken(zoo):
        def loss(self, outputs, targets):
            raise ArithmeticError("no loss today")

    plan = plan_of(Broken(RECIPE, "relu"), "cpu")
    assert plan.path == "alone"
    assert "no loss today" in plan.reason
    assert list(cache_folder.glob("packing/*")) == []
