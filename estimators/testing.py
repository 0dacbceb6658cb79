"""Checks that any estimator must pass, for those who write one: `check_estimator(Mine())` in a test of their own.

Each check can be called alone and raises AssertionError with one line that says what is wrong. An estimator on runs is given an
additive game, whose effects are known; one on reference models a small convex problem, on which leaving an example out can be
retrained exactly enough to know which examples help (`estimators.trials`).

    from estimators.testing import check_estimator

    def test_mine_keeps_the_contract():
        check_estimator(Mine(strength=2.0))
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from estimators.contract import Attribution, Estimator
from estimators.evidence import Evidence, Runs
from estimators.trials import EFFECTS, Game, game_evidence, model_evidence, retrained, run_needs
from workers.errors import ConfigError, DataError
from workers.runs import Queries

__all__ = [
    "check_claims",
    "check_determinism",
    "check_estimator",
    "check_options",
    "check_queries",
    "check_refusals",
    "check_shapes",
    "check_sign",
    "check_units",
    "evidence_for",
    "game_evidence",
    "model_evidence",
]

EXACT, LIKELY = 0.7, 0.3
"""Least correlation with true effects that are seen exactly (the game's), and that are approximated (retraining's)."""
NEAR, ROUGH = 2.5, 10.0
"""Factors by which values in units of the measure may differ from true effects: seen exactly, and approximated."""


def evidence_for(estimator: Estimator, measure: str = "margin") -> Evidence:
    """Return evidence that meets the estimator's needs; the game has a measure of its own."""
    if estimator.needed & {"checkpoints", "gradients"}:
        return model_evidence(*estimator.needed, measure=measure)
    train = _asks_for_training_queries(estimator)
    return game_evidence(*estimator.needed, queries=Queries("train", (0, 1, 2)) if train else None)


def _asks_for_training_queries(estimator: Estimator) -> bool:
    """Say whether the estimator refuses queries that are the task's own (memorization does)."""
    try:
        estimator.check(game_evidence())
    except ConfigError as error:
        return "source: train" in str(error)
    return False


def check_shapes(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """Values are (n, t) float32 and finite; what else there is has its shape; standard errors are not negative."""
    evidence = evidence or evidence_for(estimator)
    made = estimator.attribute(evidence)
    n, t = evidence.n, evidence.t
    shapes = {"values": (n, t), "bias": (t,), "standard_error": (n, t)}
    shapes |= {"utility": (n,), "utility_standard_error": (n,)}
    for name, shape in shapes.items():
        array = getattr(made, name)
        if array is None:
            continue
        assert array.shape == shape, f"{name} has shape {array.shape}, expected {shape}"
        assert array.dtype == np.float32, f"{name} is {array.dtype}, expected float32"
        if "error" in name:
            assert not (array < 0).any(), f"{name} has negative entries"
        else:
            assert np.isfinite(array).all(), f"{name} is not finite everywhere"
    assert made.models >= 0, f"models is {made.models}, expected how many trained models it used"
    unknown = set(made.fitted_on) - set(evidence.runs)
    assert not unknown, f"fitted_on names designs that it was not given: {sorted(unknown)}"


def check_claims(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """What is said beside the values holds: what it was fitted on, standard errors, the utility, the bias.

    An estimator that names no design is scored on the runs that it was fitted on. Standard errors are in units of the measure, so
    that values with them are, too.
    """
    evidence = evidence or evidence_for(estimator)
    made = estimator.attribute(evidence)
    if run_needs(estimator.needed):
        assert made.fitted_on, "fitted_on is empty, expected the designs whose runs it used: it is never scored on them"
    if estimator.needed - {"gradients"}:
        assert made.models > 0, f"models is {made.models}, expected how many trained models it used"
    for name in ("standard_error", "utility_standard_error"):
        array = getattr(made, name)
        assert array is None or not np.isinf(array).any(), f"{name} has infinite entries: NaN where it is not known"
    if made.utility is not None:
        found = _correlation(made.utility, made.values.mean(axis=1))
        assert found > EXACT, f"the utility's correlation with the values' mean over the queries is {found:.2f}"
    if made.bias is not None:
        for runs in (evidence.runs[design] for design in made.fitted_on):
            _check_bias(made, made.bias, runs)
    if made.standard_error is not None and not evidence.references and isinstance(evidence.task, Game):
        known = _known(estimator)
        room = np.abs(known).max() + 8 * np.nan_to_num(made.standard_error.astype(np.float64))
        off = np.abs(made.values - known) - room
        assert (off <= 0).all(), (
            f"a value is {made.values.ravel()[off.argmax()]:.3g} where the effect is {known.ravel()[off.argmax()]:.3g}: "
            "values with standard errors are in units of the measure"
        )


def _check_bias(made: Attribution, bias: NDArray[np.float32], runs: Runs) -> None:
    """Hold f_q(S) ~ bias[q] + sum of values[i, q] over S against the mean outputs of the subsets it was fitted on."""
    masks, outputs = runs.means()
    predicted = bias + masks @ made.values.astype(np.float64)
    off = np.abs(predicted.mean(axis=0) - outputs.mean(axis=0)) - outputs.std(axis=0)
    assert (off <= 1e-3).all(), (
        f"bias + masks @ values is {predicted.mean(axis=0)[off.argmax()]:.3g} on the average of the runs of {runs.design!r}, "
        f"whose outputs are {outputs.mean(axis=0)[off.argmax()]:.3g}"
    )


def check_sign(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """An attribution is the effect of *including* an example on the *measured output*, of every query its own.

    On the game, values must go with the effects that are known. On the convex task, with what retraining without each example
    does to the margin, and to the loss: a helpful example raises the one and lowers the other.
    """
    given = [evidence or evidence_for(estimator)]
    if evidence is None and given[0].measure == "margin":
        given.append(evidence_for(estimator, "loss"))
    for each in given:
        values = estimator.attribute(each).values
        exact = isinstance(each.task, Game)
        expected, least = (_known(estimator), EXACT) if exact else (retrained(each), LIKELY)
        for query in range(each.t):
            found = _correlation(values[:, query], expected[:, query])
            assert found > least, (
                f"query {query}: the values' correlation with the true effects of including examples on the {each.measure} is "
                f"{found:.2f}, expected more than {least}: is the sign that of leaving out, is the query another one?"
            )


def check_units(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """Values that claim units of the measure have the size of the effects, which are known: of the game within a factor of 2.5.

    First-order effects may be larger than what retraining without an example does, or smaller, but not by orders of magnitude.
    """
    if not estimator.claims_units:
        return
    evidence = evidence or evidence_for(estimator)
    values = estimator.attribute(evidence).values.astype(np.float64)
    exact = isinstance(evidence.task, Game)
    expected, room = (_known(estimator), NEAR) if exact else (retrained(evidence), ROUGH)
    size = float(np.sqrt(np.square(values).sum() / np.square(expected).sum()))
    assert 1 / room < size < room, (
        f"the values are {size:.3g} times as large as the true effects: claims_units says that they are in units of the measure"
    )


def _correlation(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Return Pearson's correlation, 0 where one of both is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1])


def _known(estimator: Estimator) -> NDArray[np.float64]:
    """Return the game's effects (n, t); of whole groups where groups were left out."""
    if "leave_group_out" in estimator.needed:
        groups: NDArray[np.float64] = EFFECTS.reshape(-1, 2, EFFECTS.shape[1]).sum(axis=1)
        return groups.repeat(2, axis=0)
    return EFFECTS


def check_queries(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """Queries in another order get the same answers in that order; on the convex task, training examples as queries too.

    What is drawn may be drawn again for another order: the difference must be small beside the values' spread.
    """
    evidence = evidence or evidence_for(estimator)
    asked = [evidence]
    if evidence.references and not evidence.runs:  # the runs there are were measured on the task's own queries
        asked.append(replace(evidence, queries=Queries("train", tuple(range(evidence.t)))))
    for one in asked:
        order = np.roll(np.arange(one.t), 1)
        straight, turned = (estimator.attribute(each).values for each in (one, _in_order(one, order)))
        off = float(np.sqrt(np.square(turned - straight[:, order]).mean()))
        assert off <= 0.15 * float(straight.std()), (
            f"queries of source {one.queries.source!r} in another order get other answers: they differ by {off:.3g}, "
            f"the values spread by {straight.std():.3g}"
        )


def _in_order(evidence: Evidence, order: NDArray[np.int64]) -> Evidence:
    """Return the same evidence with its queries in another order."""
    indices = evidence.queries.indices or tuple(range(evidence.t))
    return replace(
        evidence,
        runs={name: runs.with_outputs(runs.outputs[:, order]) for name, runs in evidence.runs.items()},
        queries=replace(evidence.queries, indices=tuple(indices[place] for place in order.tolist())),
        empty=None if evidence.empty is None else evidence.empty[order],
    )


def check_determinism(estimator: Estimator, evidence: Evidence | None = None) -> None:
    """The same evidence gives the same bits; whatever is drawn comes from the evidence's seed."""
    evidence = evidence or evidence_for(estimator)
    first, second = estimator.attribute(evidence), estimator.attribute(evidence)
    for name in ("values", "bias", "standard_error", "utility", "utility_standard_error"):
        assert _bits(first, name) == _bits(second, name), f"{name} differ between two calls on the same evidence"


def _bits(made: Attribution, name: str) -> bytes | None:
    array = getattr(made, name)
    return None if array is None else array.tobytes()


def check_options(estimator: Estimator) -> None:
    """Options are frozen, described, refuse unknown keys, and come back from JSON."""
    kind: Any = type(estimator)
    for key, option in kind.model_fields.items():
        assert option.description, f"option {key!r} has no description: the schema shows it"
    assert kind.model_validate_json(estimator.model_dump_json()) == estimator, "options do not come back from JSON"
    for key in kind.model_fields:
        try:
            setattr(estimator, key, getattr(estimator, key))
        except ValidationError:
            continue
        raise AssertionError(f"option {key!r} can be changed: expected a frozen model")
    try:
        kind(no_such_option=1)
    except ValidationError:
        return
    raise AssertionError("an unknown option is taken: expected extra='forbid'")


def check_refusals(estimator: Estimator) -> None:
    """Evidence without what is needed is refused by ConfigError or DataError, before or while attributing, in one line."""
    if not estimator.needed:
        return
    whole = evidence_for(estimator)
    _check_refused(estimator, replace(whole, runs={}, references=(), task=Game()), ", ".join(sorted(estimator.needed)))
    if "checkpoints" in estimator.needed:
        _check_refused(estimator, replace(whole, references=()), "reference models")
    for need in run_needs(estimator.needed):
        others = {name: runs for name, runs in whole.runs.items() if name != need}
        _check_refused(estimator, replace(whole, runs=others), f"runs of {need}")


def _check_refused(estimator: Estimator, lacking: Evidence, what: str) -> None:
    try:
        estimator.check(lacking)
        estimator.attribute(lacking)
    except (ConfigError, DataError) as error:
        lines = len(str(error).splitlines())
    else:
        raise AssertionError(f"evidence without {what} is not refused")
    assert lines == 1, f"the refusal has {lines} lines, expected one"


def check_estimator(estimator: Estimator, *, attributes: bool = True) -> None:
    """Run all checks; without `attributes` those of what the values say are left out, for values that say nothing of the data."""
    check_options(estimator)
    evidence = evidence_for(estimator)
    check_shapes(estimator, evidence)
    check_claims(estimator, evidence)
    if attributes:
        check_sign(estimator)
        check_queries(estimator, evidence)
        check_units(estimator, evidence)
    check_determinism(estimator, evidence)
    check_refusals(estimator)
