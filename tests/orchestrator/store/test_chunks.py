"""A chunk's bytes are those that Zarr writes and reads; bytes of anything else are refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import Zstd
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import PackBits

from orchestrator.store.arrays import Chunk, RunArray, Spec, Unreadable, create_tree
from orchestrator.store.chunks import ChunkFormat, CodecError
from orchestrator.store.manifest import DesignLayout, Manifest
from workers.errors import StoreError

SPECS = {
    "masks": Spec("bool", False, 13, "example"),
    "seeds": Spec("uint32", 0),
    "subsets": Spec("int64", 0),
    "repeats": Spec("int32", 0),
    "outputs/loss": Spec("float32", np.nan, 5, "query"),
}
LAYOUT = DesignLayout("fit", "subsets", "fit", 10, 4)


@pytest.fixture(params=SPECS)
def array(request: pytest.FixtureRequest, tmp_path: Path) -> RunArray:
    """One array of each kind, 10 rows in chunks of 4."""
    create_tree(tmp_path / "runs", Manifest(config_hash="", n=13, t=5, measures=("loss",), designs=(LAYOUT,)))
    return RunArray.open(tmp_path / "runs/fit" / request.param, SPECS[request.param], LAYOUT)


def rows(array: RunArray) -> NDArray[Any]:
    drawn = np.random.default_rng(0).integers(0, 2**16, size=(10, *array.row_shape))
    return (drawn % 2 == 0) if array.dtype == bool else drawn.astype(array.dtype)


def by_zarr(array: RunArray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.open_array(array.path, mode="r+")


def test_the_metadata_is_what_zarr_would_write(array: RunArray, tmp_path: Path) -> None:
    spec = next(spec for name, spec in SPECS.items() if array.path.as_posix().endswith(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(
            tmp_path / "other",
            shape=spec.shape(10),
            chunks=spec.shape(4),
            dtype=spec.dtype,
            fill_value=spec.fill,
            filters=[PackBits()] if spec.dtype == "bool" else None,
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            dimension_names=("run", spec.dimension)[: len(spec.shape(1))],
            chunk_key_encoding={"name": "default", "separator": "."},
        )
    expected = json.loads((tmp_path / "other" / "zarr.json").read_text())
    assert json.loads((array.path / "zarr.json").read_text()) == expected


def test_groups_are_what_zarr_would_write(array: RunArray, tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "other", mode="w", zarr_format=3, attributes={"kind": "subsets", "purpose": "fit"})
    expected = json.loads((tmp_path / "other" / "zarr.json").read_text())
    assert json.loads((tmp_path / "runs/fit/zarr.json").read_text()) == expected
    assert json.loads((tmp_path / "runs/fit/outputs/zarr.json").read_text()) == {**expected, "attributes": {}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_type", "float64"),
        ("shape", [9]),
        ("shape", []),
        ("chunk_key_encoding", {"name": "default", "configuration": {"separator": "/"}}),
        ("node_type", "group"),
        ("codecs", [{"name": "bytes"}]),
        ("codecs", None),
        ("chunk_grid", {}),
    ],
)
def test_an_array_that_is_described_otherwise_is_refused_in_a_line(array: RunArray, key: str, value: Any) -> None:
    spec = next(spec for name, spec in SPECS.items() if array.path.as_posix().endswith(name))
    path = array.path / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(StoreError, match=f"^{path} (says|is damaged)") as caught:
        RunArray.open(array.path, spec, LAYOUT)
    assert "\n" not in str(caught.value)


def test_opening_touches_no_filter_of_warnings(
    array: RunArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the filters of warnings belong to all threads")

    monkeypatch.setattr(warnings, "catch_warnings", refuse)
    monkeypatch.setattr(warnings, "filterwarnings", refuse)
    spec = next(spec for name, spec in SPECS.items() if array.path.as_posix().endswith(name))
    assert RunArray.open(array.path, spec, LAYOUT).dtype == array.dtype
    again = Manifest(config_hash="", n=13, t=5, measures=("loss",), designs=(LAYOUT,))
    create_tree(tmp_path / "again", again)


def test_zarr_reads_what_is_written(array: RunArray) -> None:
    for path, content in array.encode(0, rows(array)).items():
        path.write_bytes(content)
    np.testing.assert_array_equal(by_zarr(array)[:], rows(array))


def test_what_zarr_writes_is_read_and_would_be_written(array: RunArray) -> None:
    by_zarr(array)[:] = rows(array)
    for pack in range(3):
        chunk = array.read(pack)
        assert isinstance(chunk, Chunk)
        assert chunk.values.dtype == array.dtype
        within = rows(array)[4 * pack : 4 * pack + 4]
        np.testing.assert_array_equal(chunk.values[: len(within)], within)
        assert array.encode(4 * pack, within) == {array.chunk(pack): array.chunk(pack).read_bytes()}


@pytest.mark.parametrize("cut", range(12))
def test_no_part_of_a_chunk_is_taken_for_one(array: RunArray, cut: int) -> None:
    (path,) = array.encode(0, rows(array)[:4])
    content = array.encode(0, rows(array)[:4])[path]
    path.write_bytes(content[: len(content) * cut // 12])
    assert isinstance(array.read(0), Unreadable)


def test_every_flipped_bit_is_found(array: RunArray) -> None:
    (content,) = array.encode(0, rows(array)[:4]).values()
    for bit in range(8 * len(content)):
        harmed = bytearray(content)
        harmed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            array.format.decode(bytes(harmed))


def sealed(plain: bytes) -> bytes:
    """Compress bytes and add the checksum, as a chunk has it."""
    compressed = bytes(Zstd(level=3).encode(plain))
    return compressed + google_crc32c.value(compressed).to_bytes(4, "little")


def test_a_chunk_that_says_it_is_huge_is_refused_before_anything_is_allocated() -> None:
    small = ChunkFormat(np.dtype("float32"), (4, 5), np.nan)
    with pytest.raises(CodecError, match="does not decompress"):
        small.decode(sealed(bytes(2**24)))


def test_bits_that_are_padded_otherwise_are_refused() -> None:
    masks = ChunkFormat(np.dtype(bool), (4, 13), False)
    assert masks.decode(sealed(bytes([4, *[255] * 7]))).all()
    with pytest.raises(CodecError, match="padded by 3, expected 4"):
        masks.decode(sealed(bytes([3, *[255] * 7])))
