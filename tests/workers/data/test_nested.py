from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch

from workers.data.nested import cast, leaves, length, mapped, tensors
from workers.errors import TaskError

Pair = namedtuple("Pair", "left right")
BATCH = {"tokens": torch.arange(6).reshape(3, 2), "rest": Pair(torch.ones(3), [torch.zeros(3, 1), None])}


def test_a_structure_is_kept_and_a_mapping_becomes_a_dictionary():
    found = mapped(lambda leaf: leaf[:1], UserDict(BATCH))
    assert type(found) is dict
    assert type(found["rest"]) is Pair
    assert [leaf.shape[0] for leaf in tensors(found)] == [1, 1, 1]
    assert found["rest"].right[1] is None


def test_leaves_are_named_by_the_way_to_them():
    assert [name for name, _ in leaves(BATCH, "train_inputs")] == [
        "train_inputs.tokens", "train_inputs.rest.left", "train_inputs.rest.right.0",
    ]  # fmt: skip


def test_integers_keep_their_type_when_cast():
    found = cast(BATCH, torch.float64)
    assert [leaf.dtype for leaf in tensors(found)] == [torch.int64, torch.float64, torch.float64]
    assert [leaf.dtype for leaf in tensors(cast(BATCH, None))] == [torch.int64, torch.float32, torch.float32]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": torch.zeros(3), "b": np.zeros(4)}, "`x.b` has 4 examples and `x.a` has 3"),
        ((torch.zeros(()),), "`x.0` must be a tensor or an array with a dimension of examples, found a single number"),
        (["text"], "`x.0` must be a tensor or an array .*found str"),
        ({}, "`x` holds no tensor"),
    ],
)
def test_what_has_no_one_length_is_refused_by_its_name(value, said):
    with pytest.raises(TaskError, match=said):
        length(value, "x")
