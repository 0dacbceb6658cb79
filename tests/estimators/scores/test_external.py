"""Anybody's attribution: taken in as it is, or refused with one line that says why."""

import numpy as np
import pytest

from estimators.scores import judge_array
from workers.errors import DataError


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", ">f4"])
def test_numbers_are_taken_as_floats(tmp_path, dtype):
    values = np.arange(6).reshape(3, 2).astype(dtype)
    np.save(tmp_path / "tau.npy", values)
    for source in (values, tmp_path / "tau.npy", str(tmp_path / "tau.npy")):
        found = judge_array(source, 3, 2)
        assert found.dtype == (dtype if dtype in ("float32", "float64") else "float64")
        np.testing.assert_array_equal(found, values)


def test_nested_lists_are_arrays():
    assert judge_array([[1, 2], [3, 4], [5, 6]], 3, 2).shape == (3, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3)), r"its shape is \(2, 3\), expected \(3, 2\) = \(examples, queries\); it looks transposed$"),
        (np.zeros((3, 4)), r"its shape is \(3, 4\), expected \(3, 2\) = \(examples, queries\)$"),
        (np.zeros(6), r"its shape is \(6,\)"),
        (np.zeros((3, 2), complex), "its type is complex128, expected real numbers such as float32$"),
        (np.zeros((3, 2), bool), "its type is bool"),
        (np.full((3, 2), "a"), "its type is <U1"),
        (
            np.array([[1, np.nan], [np.inf, 2], [np.nan, -np.inf]]),
            ": 2 of its 6 values are NaN and 2 infinite, expected finite ones$",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, values, message):
    path = tmp_path / "tau.npy"
    np.save(path, values)
    with pytest.raises(DataError, match=message):
        judge_array(values, 3, 2)
    with pytest.raises(DataError, match=message) as caught:
        judge_array(path, 3, 2)
    assert str(caught.value).startswith(f"{path}: ")


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.npy").write_text("0.1 0.2\n0.3 0.4\n")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "whole.npy", np.zeros((30, 2)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-40])
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=np.zeros(2), b=np.zeros(3))
    for name in ("text.npy", "empty.npy", "cut.npy", "pickle.npy", "many.npz", "absent.npy", "."):
        with pytest.raises(DataError) as caught:
            judge_array(tmp_path / name, 30, 2)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path))


def test_non_finite_values_are_counted_over_all_blocks(monkeypatch):
    monkeypatch.setattr("estimators.scores.external._BLOCK", 4)
    values = np.zeros((9, 2), np.float32)
    values[[0, 8], 1] = np.nan
    values[4, 0] = np.inf
    with pytest.raises(DataError, match=r": 2 of its 18 values are NaN and 1 infinite, expected finite ones$"):
        judge_array(values, 9, 2)
