import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

from workers.errors import ConfigError
from workers.tasks.sklearn import class_measures


@given(st.integers(0, 100))
def test_measures_are_functions_of_p(seed):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet(np.ones(4), size=6), rng.integers(4, size=6)
    own = p[np.arange(6), y]
    measures = class_measures(p, np.arange(4), y, 1e-12)
    np.testing.assert_allclose(measures["probability"], own)
    np.testing.assert_allclose(measures["loss"], -np.log(own))
    np.testing.assert_allclose(measures["margin"], np.log(own / (1 - own)), rtol=1e-6, atol=1e-9)


def test_a_class_that_the_model_never_saw_has_probability_zero():
    measures = class_measures(np.array([[0.3, 0.7], [1.0, 0.0]]), np.array([0, 2]), np.array([1, 0]), 1e-6)
    assert measures["probability"].tolist() == [0, 1]
    np.testing.assert_allclose(measures["margin"], [np.log(1e-6), -np.log(1e-6)])
    np.testing.assert_allclose(measures["loss"], [-np.log(1e-6), 0])


def test_it_is_the_estimator_itself(build, outcome):
    task = build("sklearn", estimator="sklearn.naive_bayes:GaussianNB", data="iris", n=100, t=50)
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(150)
    train, queries = order[:100:2], order[100:]
    expected = GaussianNB().fit(x[train], y[train]).predict_proba(x[queries])[np.arange(50), y[queries]]
    result = outcome(task).outputs
    assert set(result) == {"margin", "loss", "probability", "correct"}
    np.testing.assert_allclose(result["probability"], expected, rtol=1e-5)
    assert outcome(task, "train").outputs["loss"].shape == (100,)
    np.testing.assert_array_equal(task.groups()["label"], y[order[:100]])
    assert task.label("task", 0) == load_iris().target_names[y[order[100]]]
    assert task.describe() == "iris: 100 training examples, 50 queries, GaussianNB"


def test_a_subset_without_a_class(build):
    task = build("sklearn", estimator="sklearn.naive_bayes:GaussianNB", data="iris", n=100, t=50)
    labels = task.groups()["label"]
    outputs = task.measure(task.train(np.flatnonzero(labels != 1), 0))
    lost = outputs["probability"] == 0
    assert lost.sum() >= 10
    np.testing.assert_allclose(outputs["loss"][lost], -np.log(1e-12))
    assert all(np.isfinite(values).all() for values in outputs.values())


def test_the_seed_is_the_random_state_unless_it_is_fixed(build):
    def outputs(seed, **parameters):
        forest = {"estimator": "sklearn.ensemble:RandomForestClassifier", "data": "wine"}
        task = build("sklearn", **forest, parameters={"n_estimators": 3, **parameters})
        return task.measure(task.train(np.arange(50), seed))["probability"]

    np.testing.assert_array_equal(outputs(1), outputs(1))
    assert not np.array_equal(outputs(1), outputs(2))
    np.testing.assert_array_equal(outputs(1, random_state=7), outputs(2, random_state=7))


def test_regression_of_a_table(build, outcome, table_file):
    arguments = {"path": table_file, "target": "price", "drop": ["kind"], "group": "who"}
    task = build("sklearn", estimator="sklearn.linear_model:LinearRegression", **arguments)
    result = outcome(task).outputs
    assert set(result) == {"squared_error", "prediction"}
    assert result["squared_error"].max() < 1e-6  # the target is linear in the features
    assert set(task.groups()) == {"who"}
    assert float(task.label("task", 0)) == pytest.approx(result["prediction"][0], rel=1e-4)


def test_classification_of_a_tables_text(build, outcome, table_file):
    task = build("sklearn", estimator="sklearn.tree:DecisionTreeClassifier", path=table_file, drop=["price"])
    assert task.label("train", 0) in ("cheap", "dear")
    assert outcome(task).outputs["correct"].mean() > 0.7


def test_without_probabilities_only_correctness_is_measured(build, outcome):
    task = build("sklearn", estimator="sklearn.linear_model:RidgeClassifier", data="wine")
    assert task.measures == ("correct",)
    assert set(outcome(task).outputs) == {"correct"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"estimator": "GaussianNB"}, "expected module:attribute"),
        ({"estimator": "sklearn.naive_bayes:GausianNB"}, "did you mean GaussianNB"),
        ({"estimator": "sklearn.nothing:X"}, "No module named"),
        (
            {"estimator": "os:system", "parameters": {"command": "exit 1"}},
            "expected a class with .* found builtin_func",
        ),
        ({"estimator": "sklearn.datasets:load_iris"}, "expected a class with .*, found function"),
        ({"estimator": "subprocess:Popen"}, "expected a class with .*, found one without fit"),
        ({"parameters": {"var_smooth": 1}}, "GaussianNB takes no 'var_smooth': did you mean var_smoothing"),
        ({"data": "irises"}, "did you mean iris"),
        ({"data": None}, "either `data`"),
        ({"target": "y"}, "are for a table"),
    ],
)
def test_mistakes(build, arguments, message):
    right = {"estimator": "sklearn.naive_bayes:GaussianNB", "data": "iris"}
    with pytest.raises(ConfigError, match=message):
        build("sklearn", **{**right, **arguments})
