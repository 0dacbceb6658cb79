import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import TensorDataset, default_collate

from workers import Classification, Recipe
from workers.data import rows
from workers.data.examples import Arrays, Batch, Items
from workers.errors import DataError, TaskError

ROWS = torch.arange(20.0).reshape(10, 2)
INDICES = torch.tensor([[7, 0], [3, 7]])


@pytest.fixture(params=["tensor", "memmap", "zarr", "data set"])
def examples(request, tmp_path):
    labels = torch.arange(10)
    if request.param == "data set":
        return Items(TensorDataset(ROWS, labels), lambda items: Batch(*default_collate(items)), "train_data", 10)
    if request.param == "memmap":
        np.save(tmp_path / "rows.npy", ROWS.numpy())
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    elif request.param == "zarr":
        rows = zarr.create_array(tmp_path / "rows.zarr", shape=(10, 2), chunks=(4, 2), dtype="float32")
        rows[:] = ROWS.numpy()
    else:
        rows = ROWS
    return Arrays(Batch({"rows": rows}, labels))


def rows_of(batch):
    return batch.inputs["rows"] if isinstance(batch.inputs, dict) else batch.inputs


def test_rows_come_in_the_order_and_shape_of_their_indices(examples):
    batch = examples.read(INDICES)
    assert torch.equal(rows_of(batch), ROWS[INDICES])
    assert torch.equal(batch.targets, INDICES)
    assert len(examples) == 10


def test_floating_rows_are_cast_and_integers_are_not(examples):
    batch = examples.to(torch.float64).read(INDICES[0])
    assert rows_of(batch).dtype == torch.float64
    assert batch.targets.dtype == torch.int64


def test_a_row_of_an_array_is_read_once_and_no_other_is():
    class Watched:
        shape, dtype = (10, 2), np.dtype("float32")
        asked: list

        def __getitem__(self, rows):
            self.asked = list(rows)
            return ROWS.numpy()[rows]

    watched = Watched()
    found = Arrays(watched).read(torch.tensor([9, 2, 9]))
    assert watched.asked == [2, 9]
    assert torch.equal(found, ROWS[[9, 2, 9]])


class Data(list):
    def __getitem__(self, index):
        if index == 3:
            raise OSError("disk\nand more")
        return super().__getitem__(index)


def test_an_item_that_cannot_be_read_is_named_by_its_index():
    items = Items(Data(range(10)), default_collate, "train_data", 10)
    with pytest.raises(DataError, match=r"^`train_data`: example 3 cannot be read: OSError: disk$"):
        items.read(torch.tensor([1, 3]))


def test_a_data_set_that_changes_its_length_is_refused():
    data = list(range(10))
    items = Items(data, default_collate, "query_data", 10)
    data.append(10)
    with pytest.raises(DataError, match="`query_data` has 11 examples, it had 10 when the task was built"):
        items.read(torch.tensor([1]))


def test_the_length_that_counts_is_the_first_one_asked_for():
    class Growing(Classification):
        recipe = Recipe()

        def module(self):
            return torch.nn.Linear(1, 2)

    task = Growing()
    task.train_data = task.query_data = data = [(torch.zeros(1), 0)] * 5
    assert (task.n, task.t) == (5, 5)
    data.append(data[0])
    assert (task.n, task.t) == (5, 5)
    with pytest.raises(DataError, match="`train_data` has 6 examples, it had 5 when the task was built"):
        task.examples("train").read(torch.tensor([1]))
    task.train_data = data[:3]
    assert (task.n, len(task.examples("train").read(torch.tensor([1])).targets)) == (3, 1)


@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (lambda items: torch.zeros(1), r"collate\(items\) of `train_data`: made a batch of 1 examples for 2 indices"),
        (lambda items: {"a": torch.zeros(2), "b": torch.zeros(3)}, "`batch.b` has 3 examples"),
        (lambda items: ["a", "b"], "a batch must hold tensors, found str"),
    ],
)
def test_a_batch_that_is_none_is_refused(collate, said):
    with pytest.raises(TaskError, match=said):
        Items(list(range(5)), collate, "train_data", 5).read(torch.tensor([0, 1]))


class Chunked:
    """Ten rows in chunks of four, which counts how often each chunk is decoded."""

    shape, chunks, dtype = (10, 2), (4, 2), np.dtype("float32")

    def __init__(self):
        self.decoded = []

    def __getitem__(self, wanted):
        self.decoded.append(wanted.start // 4)
        return ROWS.numpy()[wanted]


def test_a_chunk_is_decoded_once():
    array = Chunked()
    for indices in (INDICES, torch.tensor([9, 0, 9, 4]), torch.arange(10)):
        assert torch.equal(Arrays(array).read(indices), ROWS[indices])
    assert sorted(array.decoded) == [0, 1, 2]


def test_an_array_that_is_all_kept_is_not_asked_for_anything(monkeypatch):
    array = Chunked()
    assert torch.equal(Arrays(array).read(torch.arange(10)), ROWS)
    for name in ("shape", "chunks", "dtype"):
        monkeypatch.setattr(Chunked, name, property(lambda _: pytest.fail("asked")))
    assert torch.equal(rows.rows_of(array, INDICES), ROWS[INDICES])


def test_no_more_is_kept_than_has_room(monkeypatch):
    monkeypatch.setattr(rows, "KEPT_BYTES", 4 * 2 * 4)  # one chunk
    array = Chunked()
    for _ in range(3):
        assert torch.equal(Arrays(array).read(torch.arange(10)), ROWS)
    assert sorted(array.decoded) == [0, 1, 1, 1, 2, 2, 2]


def test_chunks_that_are_too_large_are_read_by_their_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "KEPT_BYTES", 4 * 2 * 4 - 1)
    array = zarr.create_array(tmp_path / "rows.zarr", shape=(10, 2), chunks=(4, 2), dtype="float32")
    array[:] = ROWS.numpy()
    assert torch.equal(Arrays(array).read(INDICES), ROWS[INDICES])
    assert id(array) not in rows._OPEN


def test_what_was_kept_of_an_array_goes_with_it():
    array = Chunked()
    Arrays(array).read(INDICES)
    key = id(array)
    assert key in rows._OPEN
    del array
    assert key not in rows._OPEN
