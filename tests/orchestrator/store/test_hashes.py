"""The ledger's hashes, against the bytes that docs/store.md says they are taken of."""

import hashlib
import struct

import numpy as np
import pytest

from orchestrator.store.hashes import content_hash, plan_hash, row_hashes

MASKS = np.array([[1, 0, 0, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)
BITS = [bytes([0b10000001, 0b10000000]), bytes([0b01000000, 0])]


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def test_of_a_file_it_is_that_of_its_bytes() -> None:
    assert content_hash(b"abc") == digest(b"abc")
    assert len(content_hash(b"")) == 32


@pytest.mark.parametrize("order", ["<", ">"])
def test_of_a_row_it_is_that_of_mask_seed_outputs_and_checkpoints(order: str) -> None:
    seeds = np.array([7, 2**32 - 1], dtype=f"{order}u4")
    first = np.array([[0.5, np.nan], [1, 2]], dtype=f"{order}f4")
    second = np.array([[-1.5], [3]], dtype=f"{order}f4")
    found = row_hashes({"masks": MASKS, "seeds": seeds}, [first, second], [{10: "bb", 2: "aa"}, {}])
    assert found == [
        digest(BITS[0] + struct.pack("<I3f", 7, 0.5, np.nan, -1.5) + b"aabb"),
        digest(BITS[1] + struct.pack("<I3f", 2**32 - 1, 1, 2, 3)),
    ]


def test_weights_come_after_the_seed_and_at_the_end_of_a_plan() -> None:
    weights = np.linspace(0, 2, 18).reshape(2, 9).astype(">f4")
    seeds, outputs = np.array([7, 8], np.uint32), np.array([[1.5], [2.5]], np.float32)
    found = row_hashes({"masks": MASKS, "seeds": seeds, "weights": weights}, [outputs], [{}, {}])
    assert found[1] == digest(BITS[1] + struct.pack("<I10f", 8, *weights[1], 2.5))
    plan = {"masks": MASKS, "seeds": seeds, "subsets": np.zeros(2, np.int64), "repeats": np.zeros(2, np.int32)}
    assert plan_hash({**plan, "weights": weights}, 1) == digest(BITS[0] + struct.pack("<Iqi9f", 7, 0, 0, *weights[0]))


def test_rows_without_checkpoints_told_are_refused() -> None:
    seeds, outputs = np.zeros(2, np.uint32), np.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match="shorter"):
        row_hashes({"masks": MASKS, "seeds": seeds}, [outputs], [{}])
    assert row_hashes({"masks": MASKS[:0], "seeds": seeds[:0]}, [outputs[:0]], []) == []


def test_of_a_plan_it_is_that_of_its_first_rows() -> None:
    plan = {
        "masks": MASKS,
        "seeds": np.array([7, 8], dtype=np.uint32),
        "subsets": np.array([-1, 5], dtype=np.int64),
        "repeats": np.array([0, 3], dtype=np.int32),
    }
    assert plan_hash(plan, 1) == digest(BITS[0] + struct.pack("<Iqi", 7, -1, 0))
    assert plan_hash(plan, 2) == digest(b"".join(BITS) + struct.pack("<2I2q2i", 7, 8, -1, 5, 0, 3))
