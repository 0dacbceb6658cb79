import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import yaml_format


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", 1000),
        ("-7", -7),
        ("0x10", 16),
        (".inf", math.inf),
        ("10:50", "10:50"),
        ("1:30.5", "1:30.5"),
        ("0:100", "0:100"),
        ("e3", "e3"),
        ("'1e-3'", "1e-3"),
        ("2024-01", "2024-01"),
        ("true", True),
        ("null", None),
        ("", None),
    ],
)
def test_scalars_are_what_people_mean(text: str, value: object) -> None:
    read = yaml_format.load(text)
    assert read == value
    assert type(read) is type(value)


tricky = st.sampled_from(
    [
        "1e-3",
        "10:50",
        "1.",
        "yes",
        "null",
        "",
        "0x1",
        "-",
        "~",
        "1_0",
        "08",
        ".nan",
        "a: b",
        "é",
        "a\nb",
        "\x85",
        "a\u2028b",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | tricky


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | tricky, inner), max_leaves=5))
def test_what_is_dumped_is_loaded_again(value: object) -> None:
    assert yaml_format.load(yaml_format.dump(value)) == value


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match=r"key 'fit' is given twice[\s\S]*line 3"):
        yaml_format.load("designs:\n  fit: 1\n  fit: 2\n")


def test_anchors_and_merges_are_no_keys_given_twice() -> None:
    assert yaml_format.load("a: &a {x: 1}\nb: {<<: *a, y: 2}\n") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
