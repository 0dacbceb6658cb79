import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "ray", "sklearn", "scipy.stats")
LIGHT = (
    "workers",
    "workers.errors",
    "workers.loading",
    "workers.machine",
    "workers.measures",
    "workers.packed.strategy",
    "workers.recipe",
    "workers.runs",
    "workers.task",
    "workers.task_checks",
)


def heavy_modules_after(code: str) -> list[str]:
    ask = f"{code}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_that_the_command_line_needs_imports_nothing_heavy(module):
    assert heavy_modules_after(f"import {module}") == []


def test_heavy_modules_would_be_seen():
    assert heavy_modules_after("import workers.training.precision") == ["torch"]


def test_every_exported_name_is_there_and_is_its_modules_own():
    import workers

    assert set(workers.__all__) <= set(dir(workers))
    for name in workers.__all__:
        assert getattr(workers, name).__module__ in ("workers.recipe", "workers.runs", "workers.task")
    with pytest.raises(AttributeError, match="has no attribute 'Recipes'") as error:
        workers.Recipes  # noqa: B018
    assert error.value.obj is workers, "who reports a user's mistake asks which module was meant"
