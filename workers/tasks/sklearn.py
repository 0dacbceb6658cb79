"""Any scikit-learn estimator (or one with its interface) as a black-box task."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from sklearn.base import is_classifier

from workers.errors import ConfigError, near
from workers.tasks import arguments, splits, tables
from workers.tasks.arguments import checked
from workers.tasks.splits import split
from workers.tasks.tables import Table


class SklearnTask:
    """Fit `estimator(**parameters)` on the subset, and read its predictions.

    A classifier is measured by correct, probability, margin = log(p / (1 - p)) and loss = -log p of the true class,
    from predict_proba (without which only correct is there); a regressor by squared_error and prediction. Both p and
    1 - p, the latter as the sum of the other classes' probabilities, are raised to at least `epsilon` before their
    logarithms are taken; a class that the subset lacks has p = 0. Every `random_state` parameter, of the steps of a
    pipeline too, is set to the run's seed unless `parameters` fixes it. `flip_labels` changes that fraction of a classifier's
    training labels, chosen by `flip_seed`, to another class.
    """

    @checked
    def __init__(
        self,
        estimator: Annotated[str, Field(description="import path of its class, such as sklearn.svm:SVC")],
        parameters: Annotated[dict[str, Any] | None, Field(description="what the class is called with")] = None,
        data: Annotated[
            str | None, Field(description="one of scikit-learn's data sets, such as breast_cancer, or null for a path")
        ] = None,
        path: arguments.TablePath | None = None,
        target: arguments.Target = None,
        drop: arguments.Drop = None,
        group: arguments.Group = None,
        n: arguments.Count | None = None,
        t: arguments.QueryCount | None = None,
        test_fraction: arguments.TestFraction = 0.2,
        split_seed: arguments.SplitSeed = 0,
        epsilon: Annotated[PositiveFloat, Field(description="least p and 1 - p whose logarithm is taken")] = 1e-12,
        flip_labels: arguments.FlipLabels = 0.0,
        flip_seed: arguments.FlipSeed = 0,
    ):
        self._factory, self._name = _import(estimator), estimator.rpartition(":")[2]
        self._parameters, self._epsilon = parameters or {}, epsilon
        probe = self._estimator(seed=0)
        self.classifier = bool(is_classifier(probe))
        self._table, self.classes = _table(data, path, target, drop or [], group, self.classifier)
        self._train, self._queries = split(len(self._table.x), n, t, split_seed, test_fraction)
        self.n, self.t = len(self._train), len(self._queries)
        self._y = self._table.target
        if flip_labels and not self.classifier:
            raise ConfigError(f"flip_labels: {self._name} is no classifier, it has no labels to change")
        self._true, self.flipped = self._y, np.zeros(self.n, dtype=bool)
        if flip_labels:
            self._y = self._y.copy()
            noisy, self.flipped = splits.flip_labels(self._y[self._train], len(self.classes), flip_labels, flip_seed)
            self._y[self._train] = noisy
        self.measures = _measures(self.classifier, hasattr(probe, "predict_proba"))

    def train(self, subset: NDArray[np.int64], seed: int) -> Any:
        """Return the estimator fitted on the subset."""
        rows = self._train[subset]
        return self._estimator(seed).fit(self._table.x[rows], self._y[rows])

    def measure(self, model: Any) -> Mapping[str, NDArray[np.float64]]:
        """Return every measure of the queries, each (t,) float64."""
        return self._measure(model, self._queries)

    def measure_train(self, model: Any) -> Mapping[str, NDArray[np.float64]]:
        """Return every measure of the training examples, each (n,) float64."""
        return self._measure(model, self._train)

    def groups(self) -> Mapping[str, NDArray[np.int64]]:
        """Return the classes of the training examples as `label`, and the groups of the `group` column."""
        label = {"label": self._y[self._train]} if self.classifier else {}
        return label | {name: ids[self._train] for name, ids in self._table.groups.items()}

    def show(self, source: str, index: int) -> str:
        """Return the features in words."""
        return self._table.row(self._row(source, index))

    def label(self, source: str, index: int) -> str:
        """Return the class name (of a flipped training label both) or the target value."""
        row = self._row(source, index)
        if not self.classifier:
            return f"{self._y[row]:g}"
        return splits.class_told(self.classes, int(self._y[row]), int(self._true[row]))

    def describe(self) -> str:
        """Return the task in one line."""
        noise = f", {int(self.flipped.sum()):,} labels flipped" if self.flipped.any() else ""
        return f"{self._table.title}: {self.n:,} training examples{noise}, {self.t:,} queries, {self._name}"

    def fingerprint(self) -> str:
        """Return a hash of features, targets, and which examples are trained and asked about."""
        digest = hashlib.sha256()
        for array in (self._table.x, self._y, self._train, self._queries):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(
                np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode()
            )
        return digest.hexdigest()[:16]

    def _row(self, source: str, index: int) -> int:
        return int((self._train if source == "train" else self._queries)[index])

    def _estimator(self, seed: int) -> Any:
        """Return a new estimator with its random states set. Raises ConfigError for parameters it does not take."""
        try:
            estimator = self._factory(**self._parameters)
        except TypeError as error:
            known = [name for name in inspect.signature(self._factory).parameters if name not in ("args", "kwargs")]
            unknown = [name for name in self._parameters if name not in known]
            if not unknown:
                raise
            raise ConfigError(f"parameters: {self._name} takes no {unknown[0]!r}: {near(unknown[0], known)}") from error
        states = [name for name in estimator.get_params() if name.rpartition("__")[2] == "random_state"]
        free = [name for name in states if estimator.get_params()[name] is None]
        return estimator.set_params(**dict.fromkeys(free, seed))

    def _measure(self, model: Any, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        x, y = self._table.x[rows], self._y[rows]
        predicted = model.predict(x)
        if not self.classifier:
            predicted = np.asarray(predicted, dtype=np.float64).reshape(len(rows))
            return {"squared_error": (predicted - y) ** 2, "prediction": predicted}
        outputs = {"correct": (predicted == y).astype(np.float64)}
        if "probability" in self.measures:
            outputs |= class_measures(model.predict_proba(x), model.classes_, y, self._epsilon)
        return outputs


def class_measures(
    probabilities: NDArray[Any], classes: NDArray[Any], targets: NDArray[np.int64], epsilon: float
) -> dict[str, NDArray[np.float64]]:
    """Return probability, margin and loss of the true class, each (b,) float64.

    `probabilities` (b, k) has one column for each of `classes` (k,), those that the model saw. 1 - p is taken as the
    sum of the other columns, which keeps its digits when p is almost 1.
    """
    own = np.asarray(targets)[:, None] == np.asarray(classes)
    p = np.where(own, probabilities, 0.0).sum(axis=1, dtype=np.float64)
    rest = np.where(own, 0.0, probabilities).sum(axis=1, dtype=np.float64)
    log_p, log_rest = np.log(np.maximum(p, epsilon)), np.log(np.maximum(rest, epsilon))
    return {"probability": p, "margin": log_p - log_rest, "loss": -log_p}


def _measures(classifier: bool, probabilistic: bool) -> tuple[str, ...]:
    if not classifier:
        return ("squared_error", "prediction")
    return ("margin", "loss", "probability", "correct") if probabilistic else ("correct",)


def _table(
    data: str | None, path: str | Path | None, target: str | None, drop: list[str], group: str | None, classifier: bool
) -> tuple[Table, tuple[str, ...]]:
    """Return the table, its target as class indices or numbers, and the class names."""
    if (data is None) == (path is None):
        raise ConfigError("give either `data` (a data set of scikit-learn's) or `path` (a table), not both or none")
    classes: tuple[str, ...] = ()
    if path is not None:
        table = tables.read(path, target, drop, group)
    elif target is None and group is None and not drop:
        table, classes = tables.bundled(str(data))
    else:
        raise ConfigError("`target`, `drop` and `group` are for a table given by `path`, not for `data`")
    if not classifier:
        return tables.with_target(table, tables.numeric_target(table)), ()
    names, codes = tables.class_target(table)
    return tables.with_target(table, codes), classes or names


_INTERFACE = ("fit", "predict", "get_params", "set_params")
"""What is asked of an estimator."""


def _import(name: str) -> Any:
    """Return the class that `module:attribute` names. Raises ConfigError when it is not there, or no class of estimators."""
    module, _, attribute = name.rpartition(":")
    if not module:
        raise ConfigError(f"estimator {name!r}: expected module:attribute, such as sklearn.naive_bayes:GaussianNB")
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"estimator {name!r}: {error}") from error
    if not hasattr(found, attribute):
        known = [public for public in dir(found) if not public.startswith("_")]
        close = near(attribute, known).partition(" (known")[0]
        raise ConfigError(f"estimator {name!r}: {module} has no {attribute!r}: {close}")
    kind = getattr(found, attribute)
    lacking = [method for method in _INTERFACE if not callable(getattr(kind, method, None))]
    if not inspect.isclass(kind) or lacking:  # nothing else is called, whatever a configuration names
        raise ConfigError(
            f"estimator {name!r}: expected a class with scikit-learn's interface ({', '.join(_INTERFACE)}), "
            f"found {'one without ' + lacking[0] if inspect.isclass(kind) else type(kind).__name__}"
        )
    return kind
