import gzip
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workers.data import datasets, images, tables
from workers.data.shared import SharedArrays, shared, to_tensor
from workers.errors import ConfigError, DataError


def test_loads_once_and_read_only():
    arrays, calls = SharedArrays(), []

    def load():
        calls.append(1)
        return {"x": np.arange(3)}

    with arrays.in_use():
        first, second = (shared("test:once", load) for _ in range(2))
    assert len(calls) == 1
    assert first["x"] is second["x"]
    assert arrays.loaded()["test:once"]["x"] is first["x"]
    with pytest.raises(ValueError, match="read-only"):
        first["x"][0] = 1


def test_provided_arrays_replace_the_file_and_are_not_copied(tmp_path):
    path, array = tmp_path / "absent.npz", np.zeros((4, 28, 28), np.uint8)
    array.flags.writeable = False
    with SharedArrays({f"mnist:{path}": {"x": array, "y": np.arange(4)}}).in_use():
        assert np.shares_memory(images.mnist(path)["x"], array)


def test_what_one_task_loaded_is_not_another_s(tmp_path):
    path, one, other = tmp_path / "t.csv", SharedArrays(), SharedArrays()
    path.write_text("a\n1\n")
    with one.in_use():
        held = tables.table(path)["a"]
        path.write_text("a\n2\n")
        assert tables.table(path)["a"] is held
        with other.in_use():
            assert tables.table(path)["a"].tolist() == [2]
        assert tables.table(path)["a"] is held
    path.write_text("a\n3\n")
    assert tables.table(path)["a"].tolist() == [3], "without any in use the file is read"
    assert held.tolist() == [1]


@pytest.mark.parametrize(("writeable", "dtype"), [(True, "float32"), (False, "float32"), (False, "float64")])
def test_to_tensor_never_hands_out_read_only_memory(writeable, dtype):
    array = np.arange(6, dtype="float32").reshape(2, 3)
    array.flags.writeable = writeable
    tensor = to_tensor(array, dtype)
    assert tensor.dtype == getattr(torch, dtype)
    assert np.shares_memory(tensor.numpy(), array) == (writeable and dtype == "float32")
    tensor[0, 0] = 9


def test_digits_ship_with_scikit_learn():
    arrays = datasets.digits()
    assert arrays["x"].shape == (1797, 8, 8)
    assert (arrays["x"].min(), arrays["x"].max()) == (0, 16)


def test_an_unknown_bundled_set_is_refused_by_near_names():
    with pytest.raises(ConfigError, match="did you mean wine"):
        datasets.bundled("wines")


def some_images(count, *shape):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_npz_of_arrays(tmp_path):
    x, y = some_images(6, 32, 32, 3), np.arange(6, dtype=np.uint8)[:, None]
    np.savez(tmp_path / "c.npz", x=x, y=y, x_test=x[:2], y_test=y[:2])
    arrays = images.cifar10(tmp_path / "c.npz")
    np.testing.assert_array_equal(arrays["x"], x)
    assert arrays["y"].tolist() == [0, 1, 2, 3, 4, 5]
    assert arrays["y_test"].dtype == np.int64


def test_npz_of_jpeg_bytes(tmp_path):
    colours = np.array([[0, 0, 0], [200, 40, 90], [255, 255, 255]], dtype=np.uint8)
    pieces = []
    for colour in colours:
        buffer = io.BytesIO()
        Image.fromarray(np.broadcast_to(colour, (32, 32, 3)).copy()).save(buffer, "JPEG", quality=95)
        pieces.append(np.frombuffer(buffer.getvalue(), np.uint8))
    jpeg, offset = np.concatenate(pieces), np.cumsum([0, *map(len, pieces)]).astype(np.uint32)
    labels = np.array([3, 1, 4], np.uint8)
    parts = {f"{s}_{k}": v for s in ("train", "test") for k, v in (("jpeg", jpeg), ("offset", offset))}
    np.savez(tmp_path / "j.npz", **parts, y_train=labels, y_test=labels)
    arrays = images.cifar10(tmp_path / "j.npz")
    assert arrays["x"].shape == (3, 32, 32, 3)
    np.testing.assert_allclose(arrays["x_test"].mean((1, 2)), colours, atol=3)
    assert arrays["y"].tolist() == [3, 1, 4]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": some_images(2, 28, 28)}, "expected arrays `x` and `y`, found images"),
        ({"x": some_images(2, 8, 8), "y": np.zeros(2)}, r"expected uint8 images of shape \(m, 28, 28\)"),
        ({"x": some_images(2, 28, 28), "y": np.zeros(3)}, "must be 2 numbers from 0 to 9, found 3"),
        ({"train_jpeg": np.zeros(2, np.uint8)}, "lacks train_offset, y_train"),
    ],
)
def test_a_wrong_npz_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(DataError, match=message):
        images.mnist(tmp_path / "m.npz")


def damaged(content):
    """Yield the content cut short, and with one byte turned round, at places all over it."""
    for place in range(0, len(content), 13):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_damaged_npz_is_a_line_or_read_as_it_was(tmp_path):
    path, x = tmp_path / "m.npz", some_images(3, 28, 28)
    np.savez_compressed(path, x=x, y=np.arange(3))
    refused = 0
    for content in (b"no", b"PK\x03\x04 broken", *damaged(path.read_bytes())):
        path.write_bytes(content)
        said = None
        try:
            np.testing.assert_array_equal(images.mnist(path)["x"], x)
        except DataError as error:
            said = str(error)
        if said is not None:
            refused += 1
            assert said.startswith(str(path))
            assert "\n" not in said
    assert refused > 100


@pytest.mark.parametrize(
    ("jpeg", "offset"),
    [
        (np.frombuffer(b"no picture", np.uint8), [0, 10]),
        (np.frombuffer(b"\xff\xd8\xff\xe0 cut short", np.uint8), [0, 15]),
        (np.zeros(0, np.uint8), [0]),
        (np.zeros(9, np.uint8), [0.0, 9.0]),
    ],
)
def test_damaged_jpeg_images_are_a_line(tmp_path, jpeg, offset):
    path = tmp_path / "j.npz"
    parts = {f"{s}_{k}": v for s in ("train", "test") for k, v in (("jpeg", jpeg), ("offset", np.array(offset)))}
    np.savez(path, **parts, y_train=np.zeros(1, int), y_test=np.zeros(1, int))
    with pytest.raises(DataError, match="train_jpeg and train_offset cannot be read as JPEG images: ") as caught:
        images.cifar10(path)
    assert "\n" not in str(caught.value)


def test_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*m\.npz"):
        images.mnist(tmp_path / "m.npz")
    with pytest.raises(DataError, match=r"set `path` .* or set `download: true`"):
        images.mnist(tmp_path)
    with pytest.raises(DataError, match="there is no file"):
        tables.table(tmp_path / "t.csv")


FRAME = pd.DataFrame(
    {"size": [1.5, np.nan, 3.0], "colour": ["red", None, "blue"], "count": [1, 2, 3], "sold": [True, False, True]}
)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet"])
def test_tables(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, sep="\t" if "tsv" in name else ";", index=False)
    columns = tables.table(path)
    assert list(columns) == ["size", "colour", "count", "sold"]
    np.testing.assert_array_equal(columns["size"], [1.5, np.nan, 3])
    assert columns["colour"].tolist() == ["red", None, "blue"]
    assert columns["count"].dtype == np.int64
    assert columns["sold"].tolist() == [True, False, True]
    assert columns["sold"].dtype == bool


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", b"a,b\n1,2\n1,2,3,4\n", "cannot be read as a table"),
        ("t.csv.gz", b"plain", "cannot be read as a table"),
        ("t.xlsx", b"", "unknown kind of table '.xlsx'"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        tables.table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_text(tmp_path):
    (tmp_path / "a.txt").write_text("tö be", "utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("tö be".encode()))
    assert datasets.text(tmp_path / "a.txt") == datasets.text(tmp_path / "a.txt.gz") == "tö be"
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        datasets.text(tmp_path / "b.txt")


def test_torchvisions_folder(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in (("train", 5), ("t10k", 3)):
        x, y = some_images(count, 28, 28), np.arange(count, dtype=np.uint8)
        for name, array in ((f"{split}-images-idx3-ubyte", x), (f"{split}-labels-idx1-ubyte", y)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / name).write_bytes(header + array.tobytes())
    arrays = images.mnist(tmp_path)
    np.testing.assert_array_equal(arrays["x"], some_images(5, 28, 28))
    assert arrays["x_test"].shape == (3, 28, 28)
    assert arrays["y_test"].tolist() == [0, 1, 2]
