"""The house keeps its own rules: who may import whom, and that names in the documents are names in the code."""

import ast
import importlib
import importlib.util
import logging
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports
from typer.main import get_group

from estimators.contract import Estimator
from estimators.registry import BUILT_IN as ESTIMATORS
from estimators.registry import find, is_estimator, names
from estimators.registry import load as load_estimator
from orchestrator.cli.main import app
from orchestrator.config.grid import grid_of, points
from orchestrator.config.loading import load, validate
from orchestrator.config.shipped import description, shipped
from orchestrator.designs.registry import BUILT_IN as DESIGNS
from workers.loading import BUILT_IN as TASKS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("orchestrator", "estimators", "workers")
KINDS = set(DESIGNS)
LONGEST_FILE = 400
"""In lines."""
LONGEST_FUNCTION = 60
"""In lines, with its docstring."""
ADAPTED = ("kronfluence", "traker", "dattri")
"""Extras of the adapters to other libraries."""
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the top packages that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def importing(name: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in modules() if name in imports(path)}


def test_the_layers_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    for logger in loggers:  # the linter silences all that there are, and other tests listen to some
        logger.disabled = False
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_ray_is_in_two_files() -> None:
    assert importing("ray") == {"orchestrator/execution/ray_pool.py", "orchestrator/execution/ray_session.py"}


def test_zarr_is_in_the_files_of_the_store() -> None:
    assert importing("zarr") | importing("numcodecs") == {
        "orchestrator/store/attributions.py",
        "orchestrator/store/chunks.py",
    }


def test_rows_are_read_in_the_one_way_that_checks_them() -> None:
    """Arrays and chunks, which know nothing of hashes, are named by those files of the store that write them or check them."""
    unchecked = {
        "arrays": "RunArray",
        "chunks": "ChunkFormat",
        "checked_rows": "CheckedRows",
        "design_runs": "DesignRuns",
    }
    using: dict[str, set[str]] = {name: set() for name in unchecked}
    for path in modules():
        for module, name in unchecked.items():
            if re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) and path.stem != module:
                using[module].add(str(path.relative_to(ROOT)))
    store = {
        name: f"orchestrator/store/{name}.py" for name in ("checked_rows", "design_runs", "planned_rows", "arrays")
    }
    assert using["chunks"] == {store["arrays"], "orchestrator/store/chunked_arrays.py"}
    assert using["arrays"] == {store["checked_rows"], store["design_runs"], store["planned_rows"]}
    assert using["checked_rows"] == {store["design_runs"], store["planned_rows"]}
    assert using["design_runs"] == {"orchestrator/store/run_store.py", "orchestrator/store/verification.py"}


def test_yaml_is_read_in_one_way() -> None:
    assert importing("yaml") <= {"orchestrator/config/yaml_format.py", "orchestrator/config/loading.py"}


def test_nothing_is_imported_that_is_not_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for name in ("text", *ADAPTED) for line in extras[name])]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower() for line in lines}
    provides = {
        "google-crc32c": "google_crc32c",
        "scikit-learn": "sklearn",
        "pyyaml": "yaml",
        "pillow": "PIL",
        "traker": "trak",
    }
    parts = {"markupsafe", "llvmlite", "pydantic_core"}  # of jinja2, numba and pydantic, which cannot be without them
    allowed = {provides.get(name, name) for name in declared} | parts | set(PACKAGES) | set(sys.stdlib_module_names)
    used = {name for path in modules() for name in imports(path)}
    assert used <= allowed


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_configuration_validates_and_explains_itself(name: str) -> None:
    config = load(name)
    assert config.name == name
    assert config.task.name in TASKS
    assert shipped()[name].read_text(encoding="utf-8").startswith("# ")
    assert len(description(shipped()[name])) > 20, "`counterfactory configs` shows it"


def project_imports(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a file imports from the project; the name of a whole module is empty."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] in PACKAGES]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_what_a_benchmark_imports_from_the_project_is_there(path: Path) -> None:
    """No benchmark runs in the tests, and what one compares with need not be installed."""
    for module, name in project_imports(path):
        found = importlib.import_module(module)
        there = not name or hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}") is not None
        assert there, f"{path.name}: {module} has no {name}"


def test_every_estimator_is_what_it_is_registered_as() -> None:
    for name in names():
        estimator = find(name)
        assert issubclass(estimator, Estimator)
        assert estimator.name == name
        assert estimator.__doc__
        for key, field in estimator.model_fields.items():
            assert field.description, f"{name}.{key} is described in the schema"


def test_adapters_are_offered_and_other_libraries_are_imported_by_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    offered = set(project["entry-points"]["counterfactory.estimators"].items())
    found = set()
    for path in (ROOT / "estimators" / "adapters").glob("*.py"):
        module = importlib.import_module(f"estimators.adapters.{path.stem}")
        for name, one in vars(module).items():
            if isinstance(one, type) and one.__module__ == module.__name__ and is_estimator(one):
                assert one.library in ADAPTED
                found.add((one.name, f"{module.__name__}:{name}"))
    assert offered == found
    for library in ("kronfluence", "trak", "dattri"):
        assert all(path.startswith("estimators/adapters/") for path in importing(library))


def test_every_task_that_is_built_in_is_there() -> None:
    for where in TASKS.values():
        module, _, attribute = where.partition(":")
        assert re.search(rf"^(class|def) {attribute}\b", (ROOT / f"{module.replace('.', '/')}.py").read_text(), re.M)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Yield the documents' code blocks in one language."""
    for path in DOCUMENTS:
        for found in re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            yield path, found


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """A folder with the files that the documents show whole, their names in their first lines."""
    for _, block in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block)
    return tmp_path


def test_configurations_in_the_documents_are_ones(documented: Path) -> None:
    """A whole one validates; of a part, what it names exists."""
    for path, block in blocks("yaml"):
        raw = yaml.safe_load(block)
        if not isinstance(raw, dict):
            continue
        where = f"{path.name}:\n{block}"
        task = raw.get("task", {}).get("name")
        assert task is None or task in TASKS or ":" in task, where
        assert {one.get("kind") for one in (raw.get("designs") or {}).values()} <= KINDS, where
        for label, options in (raw.get("estimators") or {}).items():
            ours = {"estimator", "measure", "tune", "tune_on"}
            own = {key: value for key, value in (options or {}).items() if key not in ours}
            for point in points(grid_of((options or {}).get("tune"), own)):
                load_estimator((options or {}).get("estimator", label), documented).model_validate({**own, **point})
        if {"task", "measures", "designs"} <= raw.keys():
            validate({"name": "x", "folder": str(documented), **raw}, path.name)


def test_commands_in_the_documents_exist() -> None:
    known = set(get_group(app).commands)
    for path in DOCUMENTS:
        said = re.findall(r"(?:^|`|\$ )counterfactory ([a-z_]+)", path.read_text(encoding="utf-8"), re.M)
        assert set(said) <= known, path.name


def test_files_that_the_documents_name_exist() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
        for named in re.findall(r"`((?:orchestrator|estimators|workers|configs)/[\w/.]+\.(?:py|yaml))`", text):
            assert (ROOT / named).exists(), f"{path.name} names {named}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_every_folder_and_every_loose_file(package: str) -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {package}/", 1)[1].split("\n## ", 1)[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for cell in first for name in re.findall(r"`([\w./]+)`", cell)}
    there = {
        path.name for path in (ROOT / package).iterdir() if path.name not in {"__init__.py", "__pycache__", "py.typed"}
    }
    assert named == there


def test_no_file_lies_loose_in_the_orchestrator() -> None:
    assert [path.name for path in (ROOT / "orchestrator").glob("*.py")] == ["__init__.py"]


def test_files_and_functions_are_short() -> None:
    """Compiled kernels may be longer: a compiler's cache watches one file."""
    kernels = {"workers/kernels/cpu.py", "estimators/lasso/descent.py"}
    long = []
    for path in modules():
        name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if name in kernels:
            continue
        if text.count("\n") > LONGEST_FILE:
            long.append(name)
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        long += [f"{name}: {one.name}" for one in functions if (one.end_lineno or 0) - one.lineno >= LONGEST_FUNCTION]
    assert long == []


def test_tests_mirror_the_folders() -> None:
    """A folder of tests is a folder of the code; `resilience` drives the whole from outside."""
    tested = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    own = {Path(), Path("resilience")}
    assert [str(folder) for folder in tested - own if not (ROOT / folder).is_dir()] == []


def test_every_built_in_name_is_documented() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for name in (*ESTIMATORS, *TASKS, *KINDS):
        assert re.search(rf"\b{name}\b", text), f"no document speaks of {name}"


def test_a_page_helps_to_choose_among_all_gradient_based_estimators() -> None:
    page = (ROOT / "docs" / "gradients.md").read_text(encoding="utf-8")
    based = {name for name, path in ESTIMATORS.items() if path.startswith("estimators.gradient_based.")}
    assert [name for name in sorted(based) if f"| `{name}` |" not in page] == []


def test_files_of_a_sweep_are_read_listed_and_removed_in_one_place() -> None:
    """A link in a stranger's sweep is refused by plain_files.py and durable.py: who goes past them follows it."""
    calls = r"\.(read_bytes|read_text|write_bytes|write_text|unlink|iterdir|r?glob|scandir|walk|rmtree)\(|\bopen\(|np\.load\("
    opened = {
        str(path.relative_to(ROOT / "orchestrator"))
        for path in (ROOT / "orchestrator").rglob("*.py")
        if any(re.search(calls, line) and "ast.walk" not in line and "def open" not in line for line in _code(path))
    }
    here = {"store/plain_files.py", "store/durable.py"}
    others = {  # what they read is the user's own file, or of the package, or of the cache folder, or a copy to be given away
        *("config/loading.py", "config/shipped.py", "config/template.py", "config/kept_schema.py"),
        *("designs/explicit.py", "sweeps/sources.py"),
        *("sweeps/seals.py", "report/page/templates.py", "stages/score.py", "execution/watchdog.py"),
        "stages/new_queries.py",
        *("stages/export/forms.py", "stages/import_runs.py", "cli/catalog.py", "catalog/tasks.py"),
    }
    suite = ("store/conformance/",)  # harm done on purpose
    assert here <= opened
    assert [name for name in sorted(opened - here - others) if not name.startswith(("imports/", *suite))] == []


def _code(path: Path) -> list[str]:
    """Return the lines of a file without comments; calls of our own names that begin like these are none of them."""
    ours = r"(?:RunStore|RunArray|ChunkedArray|cls|kind|storage|_reporter|zarr)\.open(?:_\w+)?\("
    lines = path.read_text(encoding="utf-8").splitlines()
    return [re.sub(ours, "", line.partition("#")[0]) for line in lines]
