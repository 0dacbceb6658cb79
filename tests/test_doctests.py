"""The examples in the docstrings run, each from nothing, and everything public has one."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import estimators
from estimators import scores
from estimators.registry import BUILT_IN, find

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("orchestrator", "estimators", "workers")
    for path in (ROOT / package).rglob("*.py")
    if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.M)
)
TOOLS = (
    "estimators.baselines.knn_shapley:knn_shapley",
    "estimators.curvature.blocks:BlockDiagonal",
    "estimators.curvature.conjugate_gradients:ConjugateGradients",
    "estimators.curvature.damping:unrolled_damping",
    "estimators.curvature.dense:Dense",
    "estimators.curvature.diagonal:Diagonal",
    "estimators.curvature.fisher:EmpiricalFisher",
    "estimators.curvature.fisher:SampledFisher",
    "estimators.curvature.gauss_newton:GaussNewton",
    "estimators.curvature.hessian:Hessian",
    "estimators.curvature.lanczos:LanczosSolver",
    "estimators.curvature.lissa:Lissa",
    "estimators.curvature.nystroem:Nystroem",
    "estimators.curvature.nystroem:NystroemSolver",
    "estimators.curvature.operator:Operator",
    "estimators.curvature.solvers:CholeskySolver",
    "estimators.curvature.solvers:RootSolver",
    "estimators.gradients.projection:Projection",
    "estimators.scores.removal:removal_curve",
    "estimators.scores.removal:removal_masks",
    "estimators.values.intervals:interval",
    "estimators.values.semivalue_weights:banzhaf_sizes",
    "estimators.values.semivalue_weights:beta_sizes",
    "estimators.values.semivalue_weights:shapley_sizes",
)
"""What people take by itself, beside the estimators and the scores."""


def examples(module: str) -> list[doctest.DocTest]:
    """Return the examples of a module. Each sees nothing but what it imports, so that a reader can copy it."""
    return [test for test in doctest.DocTestFinder().find(import_module(module), globs={}) if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str) -> None:
    found = examples(module)
    assert found, f"{module} has a prompt that is in no docstring"
    for test in found:
        told: list[str] = []
        result = doctest.DocTestRunner().run(test, out=told.append)
        assert result.failed == 0, "".join(told)


def public() -> dict[str, object]:
    """Return the estimators, the scores and the tools by the names that a reader knows them by."""
    tools = {where: getattr(import_module(module), name) for where in TOOLS for module, name in [where.split(":")]}
    named = {f"estimators.scores.{name}": getattr(scores, name) for name in scores.__all__}
    functions = {name: found for name, found in named.items() if inspect.isfunction(found)}
    return {**{name: find(name) for name in BUILT_IN}, **functions, "Datamodel": estimators.Datamodel, **tools}


def test_everything_public_has_an_example() -> None:
    assert [name for name, found in public().items() if ">>> " not in (found.__doc__ or "")] == []
