import numpy as np
import pandas as pd
import pytest

from workers.errors import ConfigError, DataError
from workers.task_checks import check_measures


@pytest.fixture
def frame(table_file, tmp_path):
    return pd.read_csv(tmp_path / table_file)


def test_regression(build, outcome, table_file, frame):
    task = build("tabular", path=table_file, target="price", drop=["kind"], group="who", n=90, t=30)
    order = np.random.default_rng(0).permutation(120)
    train, queries = frame.iloc[order[:90]], frame.iloc[order[90:]]
    for column, name in enumerate(["width", "age"]):
        expected = (queries[name] - train[name].mean()) / train[name].std(ddof=0)
        np.testing.assert_allclose(task.query_inputs[:, column], expected, rtol=1e-4, atol=1e-6)
    onehot = pd.get_dummies(queries["colour"])[["blue", "green", "red"]].to_numpy()
    np.testing.assert_array_equal(task.query_inputs[:, 2:], onehot)
    target = (queries["price"] - train["price"].mean()) / train["price"].std(ddof=0)
    np.testing.assert_allclose(task.query_targets, target, rtol=1e-4, atol=1e-6)
    assert task.train_targets.mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_array_equal(task.groups()["who"], train["who"])
    network = "MLP 5-128-128-128-1, columns taken for categories: colour"
    assert task.describe() == f"table (regression): 90 training examples, 30 queries, {network}"
    recipe = task.recipe
    assert (recipe.lr, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (0.03, 1e-5, 32, 20)
    assert outcome(task).outputs["squared_error"].mean() < 0.5
    row = queries.iloc[3]
    assert task.show("task", 3) == f"width={row['width']:g}, age={row['age']}, colour={row['colour']}"
    assert task.label("task", 3) == f"{row['price']:g}"


def test_a_measure_of_the_other_kind_is_answered_with_the_remedy(build, table_file):
    line = build("tabular", path=table_file, target="price", drop=["kind"])
    told = (
        "known: loss, prediction, squared_error.*taken for a regression's, and a classification has it: say kind: class"
    )
    with pytest.raises(ConfigError, match=told):
        check_measures(line, ["margin"])
    classes = build("tabular", path=table_file, kind="classification", drop=["price"])
    with pytest.raises(
        ConfigError, match=r"taken for a classification's, and a regression has it: say kind: regression$"
    ):
        check_measures(classes, ["squared_error"])
    with pytest.raises(
        ConfigError, match=r"unknown measure 'margins' of TabularClassification: did you mean margin.*\)$"
    ):
        check_measures(classes, ["margins"])


def test_units_of_the_table_on_request(build, table_file, frame):
    plain = build(
        "tabular",
        path=table_file,
        target="price",
        drop=["kind", "who"],
        standardize=False,
        standardize_target=False,
        split_seed=None,
        hidden=[4],
    )
    np.testing.assert_allclose(plain.train_inputs[:, 0], frame["width"][:96], rtol=1e-6)
    np.testing.assert_allclose(plain.query_targets, frame["price"][96:], rtol=1e-6)
    assert [tuple(p.shape) for p in plain.module().parameters()] == [(4, 5), (4,), (1, 4), (1,)]


def test_classification_of_the_last_column(build, outcome, table_file):
    task = build("tabular", path=table_file, kind="classification", drop=["price"], group="who", hidden=[16])
    assert set(task.groups()) == {"label", "who"}
    assert task.outputs == 2
    assert task.label("train", 0) == ["cheap", "dear"][task.train_targets[0]]
    assert outcome(task).outputs["correct"].mean() > 0.8


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "prise"}, ConfigError, "target: .*has no column 'prise': did you mean price"),
        ({"drop": ["x"]}, ConfigError, "drop: .*has no column 'x'"),
        ({"target": "kind", "kind": "regression"}, DataError, "must be numbers, found '(cheap|dear)'"),
        ({"kind": "ranking"}, ConfigError, "kind: Input should be 'regression' or 'classification'"),
        ({"drop": ["width", "age", "colour", "who", "price"]}, ConfigError, "no column is left"),
    ],
)
def test_mistakes(build, table_file, arguments, error, message):
    with pytest.raises(error, match=message):
        build("tabular", path=table_file, **arguments)


def test_a_missing_value_is_refused_unless_its_column_is_dropped(build, tmp_path):
    rows = "\n".join(f"{i},,{i % 3},{i}" for i in range(20))
    (tmp_path / "holes.csv").write_text(f"a,b,c,y\n{rows}\n")
    with pytest.raises(DataError, match="column 'b' has 20 missing or infinite values"):
        build("tabular", path="holes.csv")
    assert build("tabular", path="holes.csv", drop=["b"]).n == 16


def test_a_constant_column_is_only_centred(build, tmp_path):
    (tmp_path / "constant.csv").write_text("a,b,y\n" + "\n".join(f"7,{i},{i}" for i in range(20)))
    assert build("tabular", path="constant.csv").train_inputs[:, 0].abs().max() == 0


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("01", "kind: the target of classes has 2 values (0, 1): say kind: classification, or kind: regression"),
        ("3579", "kind: the target of classes has 4 values (3, 5, 7, 9): say kind: classification"),
        ("ab", "kind: the target of classes is text, such as 'a': say kind: classification"),
    ],
)
def test_a_target_that_looks_like_classes_asks_for_the_kind(targets, said, tmp_path, build):
    rows = "\n".join(f"{i / 7},{targets[i % len(targets)]}" for i in range(40))
    (tmp_path / "classes.csv").write_text(f"x,y\n{rows}\n")
    with pytest.raises(ConfigError) as refused:
        build("tabular", path="classes.csv")
    assert said in str(refused.value)
    assert "classification" in build("tabular", path="classes.csv", kind="classification").describe()
    if targets.isdigit():
        assert "regression" in build("tabular", path="classes.csv", kind="regression").describe()


def test_many_whole_numbers_and_fractions_are_numbers(tmp_path, build):
    for name, target in (("many", "{i}"), ("halves", "0.5"), ("halves", "1.5")):
        rows = "\n".join(f"{i / 7}," + (target.format(i=i % 11) if name == "many" else target) for i in range(80))
        (tmp_path / f"{name}.csv").write_text(f"x,y\n{rows}\n")
        assert "regression" in build("tabular", path=f"{name}.csv").describe()
