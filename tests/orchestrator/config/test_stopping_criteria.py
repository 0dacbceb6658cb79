import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from orchestrator.config.stopping_criteria import Comparison, Progress, parse
from workers.errors import ConfigError

KNOWN = Progress(runs=5000, hours=2.0, standard_errors=np.array([0.01, 0.03, 0.02, 0.04]), lds_interval=0.04)


@pytest.mark.parametrize(
    ("text", "met", "value"),
    [
        ("runs >= 5000", True, 5000),
        ("runs > 5000", False, 5000),
        ("hours >= 2.5", False, 2.0),
        ("lds_interval < 0.05", True, 0.04),
        ("lds_interval <= 4e-2", True, 0.04),
        ("standard_error < 0.04", False, 0.04),
        ("standard_error <= 0.04", True, 0.04),
        ("standard_error < 0.04 for 75%", True, 0.03),
        ("standard_error < 0.02 for 26 %", False, 0.02),
        ("standard_error<0.02 for 25%", True, 0.01),
    ],
)
def test_a_comparison_tells_whether_and_how_much(text, met, value):
    assert parse(text).evaluate(KNOWN) == (met, value)


@pytest.mark.parametrize("count", [20, 100, 200])
@pytest.mark.parametrize("percent", range(5, 101, 5))
def test_a_percentage_of_the_errors_is_counted_exactly(count, percent):
    found = parse(f"standard_error < 1 for {percent}%").evaluate(Progress(standard_errors=np.arange(1.0, count + 1)))
    assert found.value == percent * count // 100


@pytest.mark.parametrize(
    "text",
    ["standard_error < 9", "lds_interval < 9", "rank_stability > -1 over the last 2", "standard_error < 9 for 50%"],
)
def test_what_is_unknown_is_not_met(text):
    for progress in (Progress(), Progress(standard_errors=np.full(4, np.nan), history=(np.arange(3.0),) * 2)):
        met, value = parse(text).evaluate(progress)
        assert not met
        assert np.isnan(value)


def test_an_example_without_an_error_counts_as_the_worst():
    progress = Progress(standard_errors=np.array([0.1, np.nan, 0.2]))
    assert np.isnan(parse("standard_error < 9").evaluate(progress).value)
    assert parse("standard_error < 9 for 60%").evaluate(progress) == (True, 0.2)


def test_rank_stability_is_the_smallest_correlation_with_the_last_evaluations():
    rng = np.random.default_rng(0)
    history = tuple(np.arange(20) + scale * rng.normal(size=20) for scale in (99, 9, 2, 4, 1))
    expected = min(spearmanr(history[-1], history[-1 - k]).statistic for k in (1, 2))
    for text in (
        "rank_stability > 0.5 over the last 2",
        "rank_stability > 0.5 over last 2",
        "rank_stability > 0.5 over 2",
    ):
        met, value = parse(text).evaluate(Progress(history=history))
        assert met == (expected > 0.5)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert not parse("rank_stability > 0.9 over the last 4").evaluate(Progress(history=history)).met
    assert parse("runs > 3 or rank_stability > 0.9 over 4 and rank_stability > 0.5 over 2").looks_back() == 4
    assert parse("runs > 3").looks_back() == 0


def test_and_binds_tighter_than_or():
    yes, no = "runs > 1", "runs > 9999"
    assert parse(f"{yes} or {yes} and {no}").evaluate(KNOWN) == (True, 1.0)
    assert parse(f"({yes} or {yes}) and {no}").evaluate(KNOWN) == (False, 0.0)
    found = parse("standard_error < 0.02 or (runs >= 5000 and hours >= 1)")
    assert found.evaluate(KNOWN).met
    assert [str(one) for one in found.comparisons()] == ["standard_error < 0.02", "runs >= 5000.0", "hours >= 1.0"]


comparisons = st.one_of(
    st.builds(
        Comparison,
        st.sampled_from(["runs", "hours"]),
        st.sampled_from([">", ">="]),
        st.floats(-1e9, 1e9),
    ),
    st.builds(
        Comparison,
        st.just("standard_error"),
        st.sampled_from(["<", "<="]),
        st.floats(0, 9),
        st.none() | st.floats(0.001, 100),
    ),
    st.builds(Comparison, st.just("rank_stability"), st.just(">"), st.floats(0, 1), st.integers(1, 99).map(float)),
)
criteria = st.recursive(
    comparisons,
    lambda inner: st.tuples(inner, inner, st.booleans()).map(lambda p: p[0] & p[1] if p[2] else p[0] | p[1]),
    max_leaves=8,
)


@given(criteria)
def test_text_and_criterion_are_the_same(criterion):
    assert parse(str(criterion)) == criterion


@given(criteria, criteria)
def test_composition_is_logic(one, other):
    assert (one & other).evaluate(KNOWN).met == (one.evaluate(KNOWN).met and other.evaluate(KNOWN).met)
    assert (one | other).evaluate(KNOWN).met == (one.evaluate(KNOWN).met or other.evaluate(KNOWN).met)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "stop: expected a quantity .*, found the end of ''"),
        ("run > 5", r"stop: expected a quantity \(did you mean runs\?.*found 'run' at character 1 of 'run > 5'"),
        ("runs < 5", "expected > or >= after runs, found '<' at character 6"),
        ("standard_error > 0.1", "expected < or <= after standard_error, found '>'"),
        ("runs >= many", "expected a number, found 'many' at character 9"),
        ("runs >= inf", "expected a number, found 'inf'"),
        ("runs >=", "expected a number, found the end"),
        ("(runs > 5", r"expected `\)`, found the end"),
        ("runs > 5) or", r"expected `and`, `or` or the end, found '\)' at character 9"),
        ("runs > 5 hours > 1", "expected `and`, `or` or the end, found 'hours'"),
        ("runs > 5 and", "expected a quantity"),
        ("rank_stability > 0.9", "expected `over the last K`, found the end"),
        (
            "rank_stability > 0.9 over the last 0",
            "expected a whole number of evaluations, 1 or more, found '0' at character 36",
        ),
        ("rank_stability > 0.9 over 1.5", "expected a whole number of evaluations"),
        ("standard_error < 1 for 95", "expected `%`, found the end of"),
        ("standard_error < 1 for 200%", "expected a percentage above 0, at most 100, found '200' at character 24"),
        ("runs = 5", "expected > or >= after runs, found '=' at"),
    ],
)
def test_mistakes_are_told_with_their_place(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_the_key_is_named():
    with pytest.raises(ConfigError, match=r"^designs\.walks\.stop: expected a quantity"):
        parse("x", "designs.walks.stop")
