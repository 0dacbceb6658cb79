"""The options of every estimator are read without waiting for a heavy library: a schema or a usage error answers at once."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numba", "scipy.stats", "sklearn", "ray")


def loaded_after(code: str, *blocked: str) -> list[str]:
    """Run code in a fresh process and return which heavy modules it has then loaded; blocked ones cannot be imported."""
    script = f"""
    import sys
    for name in {blocked!r}:
        sys.modules[name] = None
    {code}
    print(*[name for name in {HEAVY!r} if sys.modules.get(name) is not None])
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


ALL = "from estimators.registry import BUILT_IN, find; [find(name).model_json_schema() for name in BUILT_IN]"


@pytest.mark.parametrize(
    "code",
    [
        ALL,
        "from estimators import Attribution, Estimator, Evidence, Need, Reference, Runs",
        "import estimators.scores, estimators.lasso.settings, workers.measures",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert loaded_after(code) == []


def test_nothing_heavy_is_even_tried() -> None:
    """Blocked, they would raise where a module asks for them."""
    assert loaded_after(ALL, *HEAVY) == []


def test_a_public_name_is_the_one_where_it_lives() -> None:
    import estimators
    from estimators.contract import Estimator
    from estimators.lasso.regressor import Datamodel

    assert estimators.Estimator is Estimator
    assert estimators.Datamodel is Datamodel
    assert set(estimators.__all__) <= set(dir(estimators))
    with pytest.raises(AttributeError, match="no attribute 'Datamodell'"):
        _ = estimators.Datamodell
