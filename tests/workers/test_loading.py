import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from workers import Queries, loading, named_code
from workers.errors import ConfigError, DataError, TaskError
from workers.loading import TaskSpec, build_task
from workers.task_checks import check_measures, check_queries, gives_task
from workers.task_hooks import measures_of

BLACK_BOX = """
import numpy as np
class Mine:
    n, t = 5, 3
    def __init__(self, shift=0): self.shift = shift
    def train(self, subset, seed): return len(subset)
    def measure(self, model): return {"size": np.full(self.t, model + self.shift)}
"""


@pytest.fixture
def build(tmp_path):
    """Write a file, and siblings, and build the task `attribute` of it."""

    def build(source, attribute="Mine", siblings=(), **arguments):
        (tmp_path / "my_task.py").write_text(source)
        for name, text in dict(siblings).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return build_task(TaskSpec(f"my_task.py:{attribute}", arguments, str(tmp_path)))

    return build


def refusal(error, call, *arguments, **keywords):
    """Return the one line that a call is refused with."""
    with pytest.raises(error) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("returned", ["Mine", "'Mine'", "Task", "Mine | Task", "DifferentiableTask"])
def test_a_function_that_says_that_it_returns_a_task(build, returned):
    imports = "from workers import DifferentiableTask, Task\n"
    assert (
        build(imports + BLACK_BOX + f"def make(shift=0) -> {returned}: return Mine(shift)", "make", shift=3).shift == 3
    )


@pytest.mark.parametrize("returned", ["", " -> object", " -> int", " -> Any", " -> Mine | None", " -> 'Mine | None'"])
def test_a_function_that_does_not_say_so_is_not_called(build, returned):
    source = f"from typing import Any\n{BLACK_BOX}def make(){returned}: raise SystemExit('called')"
    assert "my_task.py:make: is a function that does not say that it returns a task; annotate it" in refusal(
        TaskError, build, source, "make"
    )


def test_an_annotation_that_cannot_be_read_is_refused(build):
    source = BLACK_BOX + "def make() -> 'Absent': raise SystemExit('called')"
    assert "make: its annotations cannot be read: NameError: name 'Absent'" in refusal(TaskError, build, source, "make")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "os:system",
            {"command": "touch FILE"},
            "os:system: is a builtin_function_or_method, expected a class of tasks",
        ),
        ("os:popen", {"cmd": "touch FILE"}, "os:popen: is a function that does not say that it returns a task"),
        ("subprocess:run", {"args": ["touch", "FILE"]}, "is a function that does not say that it returns a task"),
        ("subprocess:Popen", {"args": ["touch", "FILE"]}, "Popen has no method train(subset, seed)"),
        ("pathlib:Path", {}, "Path has no method train(subset, seed)"),
        ("os:path", {}, "`n`, the number of training examples, must be an int > 0, found None"),
    ],
)
def test_what_is_no_task_is_never_called(tmp_path, name, arguments, message):
    file = str(tmp_path / "called")
    filled = {
        key: value.replace("FILE", file) if isinstance(value, str) else [*value[:-1], file]
        for key, value in arguments.items()
    }
    assert message in refusal(TaskError, build_task, TaskSpec(name, filled, str(tmp_path)))
    assert not (tmp_path / "called").exists()


HOSTILE = dict.fromkeys(
    ("workers.py", "estimators/__init__.py", "orchestrator/__init__.py"), "raise RuntimeError('theirs')"
)


def test_a_file_among_hostile_names(build, tmp_path):
    task = build("import workers\nfrom workers import Recipe\n" + BLACK_BOX, siblings=HOSTILE, shift=2)
    assert task.shift == 2
    assert type(task).__module__.startswith("_counterfactory_task_")
    assert "my_task" not in sys.modules
    assert str(tmp_path) not in sys.path
    assert sys.modules["workers"].__file__ != str(tmp_path / "workers.py")


def test_a_sibling_helper_and_pickling(build):
    task = build(
        "from helper_of_mine import value\n" + BLACK_BOX + "    n = value", siblings={"helper_of_mine.py": "value = 8"}
    )
    assert task.n == 8
    assert pickle.loads(pickle.dumps(task)).n == 8


def test_a_file_is_loaded_once_until_it_changes(build):
    first, second = build(BLACK_BOX), build(BLACK_BOX)
    assert type(first) is type(second)
    assert build(BLACK_BOX.replace("n, t = 5", "n, t = 6")).n == 6


def test_a_ready_object(build):
    assert build(BLACK_BOX + "ready = Mine()", "ready").n == 5
    message = refusal(TaskError, build, BLACK_BOX + "ready = Mine()", "ready", shift=1)
    assert "ready object and takes no arguments, found shift" in message


def test_a_module():
    assert build_task(TaskSpec("workers.tasks.digits:Digits", {"n": 50, "t": 5})).n == 50


@pytest.mark.parametrize(
    "line",
    ["from workers import thing", "import workers.thing", "import workers\nworkers.thing", "import estimators.thing"],
)
def test_a_collision_with_our_names_is_explained(build, line):
    siblings = {"workers.py": "thing = 1", "estimators/thing.py": ""}
    message = refusal(TaskError, build, line, siblings=siblings)
    assert "is counterfactory's own package here" in message
    assert "under another name" in message


def test_no_collision_is_claimed_where_there_is_none(build):
    assert "own package" not in refusal(TaskError, build, "from workers import thing")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("digit", ConfigError, "did you mean digits"),
        ("absent.py:Mine", TaskError, "there is no file"),
        ("my_task.py:", ConfigError, "expected path/to/file.py:attribute"),
        ("my_task.py:Mien", TaskError, "did you mean Mine"),
        ("absent_module:Mine", TaskError, "there is no module 'absent_module'"),
        ("my_task:Mine", TaskError, "for the file beside the configuration write my_task.py:"),
        ("workers.tasks.digits:Digit", TaskError, "did you mean Digits"),
    ],
)
def test_a_wrong_name(tmp_path, name, error, message):
    (tmp_path / "my_task.py").write_text(BLACK_BOX)
    assert message in refusal(error, build_task, TaskSpec(name, {}, str(tmp_path)))


def test_wrong_arguments_and_errors_inside_are_told_apart(build):
    message = refusal(TaskError, build, BLACK_BOX, shfit=1)
    assert "unexpected keyword argument 'shfit'" in message
    assert "did you mean shift" in message
    inside = BLACK_BOX.replace("self.shift = shift", "len(shift)")
    assert "Mine failed, line 5: TypeError: object of type 'int' has no len()" in refusal(TaskError, build, inside)


@pytest.mark.parametrize("name", ["builtins:dict", "builtins:iter", "builtins:range"])
def test_a_builtin_is_refused_and_not_called(name):
    message = refusal(TaskError, build_task, TaskSpec(name))
    assert (
        "expected a class of tasks" in message or "has no method train(subset, seed), which every task needs" in message
    )


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (dict, {}, "`n`, the number of training examples, must be an int > 0"),
        (int, {"x": 1}, "module compiled:Mine failed: TypeError"),
    ],
)
def test_a_compiled_class_that_tells_neither_arguments_nor_file_is_refused_in_a_line(
    kind, arguments, message, monkeypatch
):
    """As extension modules have them."""
    calls = {"train": lambda self, subset, seed: None, "measure": lambda self, model: None, "__module__": "builtins"}
    compiled = types.ModuleType("compiled")
    compiled.Mine = type("Mine", (kind,), calls)
    monkeypatch.setitem(sys.modules, "compiled", compiled)
    assert message in refusal(TaskError, build_task, TaskSpec("compiled:Mine", arguments))


def test_the_cause_of_a_failure_is_kept(build):
    with pytest.raises(TaskError, match="line 2: ZeroDivisionError: division by zero") as caught:
        build("x = 0\n1 / x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(TaskError, match="SyntaxError"):
        build("def")


def test_our_own_errors_pass_through(build):
    source = BLACK_BOX.replace("self.shift = shift", "raise DataError('no data')")
    assert refusal(DataError, build, "from workers.errors import DataError\n" + source) == "no data"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n, t = 5, 3", "n, t = 0, 3", "`n`, the number of training examples, must be an int > 0, found 0"),
        ("n, t = 5, 3", "n, t = 5, 3.0", "`t`, the number of queries, must be an int > 0, found 3.0"),
        ("n, t = 5, 3", "n = 5", "`t`, the number of queries, must be an int > 0, found None"),
        ("def train(self, subset, seed)", "def fit(self, subset, seed)", "has no method train(subset, seed)"),
        ("def train(self, subset, seed)", "def train(self, subset)", "`train` must be callable as train(subset, seed)"),
        ("def measure(self, model)", "def measure(self)", "`measure` must be callable as measure(model)"),
        ("n, t = 5, 3", "n, t, measures = 5, 3, 'size'", "`measures` must be a sequence of names"),
    ],
)
def test_the_black_box_contract(build, old, new, message):
    found = refusal(TaskError, build, BLACK_BOX.replace(old, new))
    assert message in found
    assert "my_task.py:Mine" in found


NETWORK = """
import torch
from torch import nn
from workers import Classification, Recipe
class Mine(Classification):
    def __init__(self):
        self.recipe = Recipe()
        self.train_inputs, self.train_targets = torch.randn(6, 2), torch.arange(6) % 2
        self.query_inputs, self.query_targets = torch.randn(3, 2), torch.arange(3) % 2
    def module(self): return nn.Linear(2, 2)
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Recipe()", "dict(lr=1)", "`recipe` must be set to a Recipe in __init__, found dict"),
        ("self.recipe = Recipe()", "pass", "`recipe` must be set to a Recipe in __init__, found nothing"),
        ("torch.arange(6) % 2", "torch.arange(5) % 2", "`train_targets` has 5 examples, expected 6"),
        (
            "torch.arange(3) % 2",
            "[0, 1, 0]",
            "`query_targets.0` must be a tensor or an array with a dimension of examples, found int",
        ),
        ("torch.arange(6) % 2", "torch.zeros(6)", "class indices >= 0 as int64, found torch.float32"),
        ("torch.arange(6) % 2", "torch.arange(6) % 2 - 1", "class indices >= 0 as int64, found -1"),
        ("torch.arange(6) % 2", "torch.arange(6) // 2", "`train_targets` must be class indices below 2, as the module"),
        ("torch.arange(3) % 2", "torch.arange(3)", "`query_targets` must be class indices below 2, as the module"),
        (
            "torch.randn(3, 2), torch.arange(3)",
            "torch.randn(0, 2), torch.arange(0)",
            "`query_inputs` holds no examples",
        ),
        ("Recipe()", "Recipe(); self.train_weights = torch.ones(5)", "shape (6,), found (5,)"),
        ("nn.Linear(2, 2)", "nn.Linear(3, 2)", "fails on its first examples: RuntimeError: mat1 and mat2"),
        ("nn.Linear(2, 2)", "torch.zeros", "module() must return a torch.nn.Module"),
        ("def module(self)", "def modul(self)", "abstract method"),
        (
            "def module(self): return nn.Linear(2, 2)",
            "bias = True\n    def module(self):\n        self.bias = not self.bias\n        return nn.Linear(2, 2, self.bias)",
            "module() returned modules with other parameters, one after the other: bias",
        ),
        (
            "def module",
            "def loss(self, o, y): return nn.functional.cross_entropy(o, y)\n    def module",
            "one number an example",
        ),
        (
            "def module",
            "def measurements(self): return {'m': lambda o, y: o}\n    def module",
            "measure 'm' must return one",
        ),
    ],
)
def test_the_differentiable_contract(build, old, new, message):
    assert build(NETWORK).n == 6
    assert message in refusal(TaskError, build, NETWORK.replace(old, new))


def test_a_pattern_of_parameters_that_are_not_there_is_refused_with_the_task(build):
    assert build(NETWORK.replace("Recipe()", "Recipe(no_decay=['bias'])")).n == 6
    message = refusal(ConfigError, build, NETWORK.replace("Recipe()", "Recipe(no_decay=['*.bias'])"))
    assert "recipe.no_decay: pattern '*.bias' matches no parameter of the module; did you mean bias?" in message


def test_a_built_in_tasks_path_starts_at_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i},{2 * i}" for i in range(20)))
    monkeypatch.chdir("/")
    assert build_task(TaskSpec("tabular", {"path": "t.csv"}, str(tmp_path))).n == 16


def test_every_built_in_name_is_there():
    for target in loading.BUILT_IN.values():
        assert callable(named_code.load_attribute(target, Path(), "task", gives_task)[0])


def test_built_in_arguments_are_checked():
    assert "n: Input should be greater than 0, found -1" in refusal(
        ConfigError, build_task, TaskSpec("digits", {"n": -1})
    )
    assert "did you mean hidden" in refusal(TaskError, build_task, TaskSpec("digits", {"hiden": 3}))
    assert "recipe: lr: Input should be" in refusal(
        ConfigError, build_task, TaskSpec("digits", {"recipe": {"lr": "x"}})
    )
    assert "do not fit into 1797" in refusal(ConfigError, build_task, TaskSpec("digits", {"n": 1700}))


def test_queries_are_checked(mean_task):
    check_queries(mean_task, Queries())
    check_queries(mean_task, Queries("task", (0, 3)))
    check_queries(mean_task, Queries("train", (9,)))
    assert "query index 4 is out of range: expected 0..3" in refusal(
        ConfigError, check_queries, mean_task, Queries("task", (1, 4))
    )
    assert "-1 is out of range" in refusal(ConfigError, check_queries, mean_task, Queries("train", (-1,)))
    assert "empty" in refusal(ConfigError, check_queries, mean_task, Queries("task", ()))
    assert "'test'" in refusal(ConfigError, check_queries, mean_task, Queries("test"))


def test_memorization_of_a_black_box_needs_measure_train(build):
    assert "measure_train(model), which Mine lacks" in refusal(
        ConfigError, check_queries, build(BLACK_BOX), Queries("train")
    )


def test_measures_are_checked(mean_task, build):
    assert measures_of(mean_task) == ("value",)
    assert measures_of(build(BLACK_BOX)) is None
    assert "margin" in measures_of(build(NETWORK))
    check_measures(build(BLACK_BOX), ["anything"])
    assert "did you mean value" in refusal(ConfigError, check_measures, mean_task, ["valu"])
    assert "did you mean margin" in refusal(ConfigError, check_measures, build(NETWORK), ["margins"])
    assert np.all(build(BLACK_BOX).measure(3)["size"] == 3)


def test_a_spec_is_a_key_whatever_its_arguments():
    specs = [TaskSpec("digits", {"recipe": {"lr": lr}, "n": 5}) for lr in (0.1, 0.1, 0.2)]
    assert len(set(specs)) == 2


def test_known_names_of_a_file_are_its_tasks(tmp_path):
    (tmp_path / "many.py").write_text(
        "import numpy as np\nfrom pathlib import Path\nfrom sklearn.linear_model import Ridge\n"
        "from workers import Classification, Recipe, Task\n"
        "class Mine:\n    def train(self, subset, seed): ...\n    def measure(self, model): ...\n"
        "class Deep(Classification):\n    def module(self): ...\n"
        "class Helper: ...\n"
        "def make() -> Task: ...\n"
        "def helper(): ...\n"
        "ready = Mine()\nnumber = 3\n"
    )
    with pytest.raises(
        TaskError, match=r"many.py has no 'Minf': did you mean Mine\? \(known: Deep, Mine, make, ready\)"
    ):
        build_task(TaskSpec("many.py:Minf", {}, str(tmp_path)))
