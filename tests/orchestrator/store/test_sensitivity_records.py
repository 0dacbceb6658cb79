"""Recorded sensitivities on disk."""

import numpy as np
import pytest

from estimators.sensitivity.recorder import Record
from orchestrator.store.paths import SweepPaths
from orchestrator.store.sensitivity_records import KEYS, read_records, write_records
from workers.errors import StoreError


def record(epoch: int) -> Record:
    return Record(epoch, 3 * epoch, np.full(4, epoch, np.float32), np.arange(4, dtype=np.float32), 0.5, 0.75, 0.01)


def test_what_is_written_is_read(tmp_path):
    path = SweepPaths(tmp_path).recorded_sensitivities("reference", 2)
    write_records(path, [record(1), record(5)])
    found = read_records(path)
    assert set(found) == set(KEYS)
    assert found["epoch"].tolist() == [1, 5]
    assert found["step"].tolist() == [3, 15]
    np.testing.assert_array_equal(found["magnitudes"], [[1] * 4, [5] * 4])
    np.testing.assert_array_equal(found["left_out_loss"], [0.75, 0.75])
    assert found["magnitudes"].dtype == np.float32


def test_what_cannot_be_read_is_told_in_one_line(tmp_path):
    path = SweepPaths(tmp_path).recorded_sensitivities("reference", 0)
    with pytest.raises(StoreError, match="no sensitivities were recorded"):
        write_records(path, [])
    with pytest.raises(StoreError, match="read"):
        read_records(path)
    path.parent.mkdir()
    path.write_bytes(b"{}")
    with pytest.raises(StoreError, match="holds no sensitivities"):
        read_records(path)
    from safetensors.numpy import save

    path.write_bytes(save({"epoch": np.arange(2)}))
    with pytest.raises(StoreError, match="step is missing"):
        read_records(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        read_records(path)
