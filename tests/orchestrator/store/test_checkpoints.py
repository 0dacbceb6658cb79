from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from orchestrator.store.checkpoints import checkpoint_hash, read_checkpoint, write_checkpoint
from workers.errors import StoreError
from workers.runs import Checkpoint


def make() -> Checkpoint:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    state = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.t(),
        "steps": torch.tensor(7),
        "double": torch.ones(2, dtype=torch.float64),
        "flags": torch.tensor([True, False]),
    }
    return Checkpoint(epoch=3, step=21, learning_rate=0.1 + 0.2, state=state)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, written = tmp_path / "full/0/3.safetensors", make()
    digest = write_checkpoint(path, written)
    read = read_checkpoint(path, digest)
    assert checkpoint_hash(path) == digest
    assert (read.epoch, read.step, read.learning_rate) == (3, 21, 0.1 + 0.2)
    assert read.state.keys() == written.state.keys()
    for name, tensor in written.state.items():
        assert read.state[name].dtype == tensor.dtype
        assert torch.equal(read.state[name], tensor)


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    hashes = {write_checkpoint(tmp_path / f"{i}.safetensors", make()) for i in range(30)}
    assert len(hashes) == 1


def test_the_file_is_plain_safetensors_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "3.safetensors"
    write_checkpoint(path, make())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"epoch": "3", "step": "21", "learning_rate": repr(0.1 + 0.2)}


def test_the_optimizers_state_is_kept_beside_the_parameters(tmp_path: Path) -> None:
    path = tmp_path / "3.safetensors"
    for optimizer in ({}, {"first/weight": torch.arange(3.0), "average/weight": torch.ones(3)}):
        digest = write_checkpoint(path, replace(make(), optimizer=optimizer))
        read = read_checkpoint(path, digest)
        assert read.state.keys() == make().state.keys()
        assert read.optimizer is not None
        assert read.optimizer.keys() == optimizer.keys()
        assert all(torch.equal(read.optimizer[name], value) for name, value in optimizer.items())
    assert read_checkpoint(path, write_checkpoint(path, make())).optimizer is None


@pytest.mark.parametrize("harm", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "3.safetensors"
    digest = write_checkpoint(path, make())
    path.write_bytes(harm(path.read_bytes()))
    assert checkpoint_hash(path) != digest
    with pytest.raises(StoreError, match=r"3\.safetensors is damaged"):
        read_checkpoint(path, digest)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "3.safetensors"
    assert checkpoint_hash(path) is None
    with pytest.raises(StoreError, match=r"cannot read .*3\.safetensors"):
        read_checkpoint(path, "00")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "3.safetensors"
    path.write_bytes(b"hello, this is no tensor")
    digest = checkpoint_hash(path)
    assert digest is not None
    with pytest.raises(StoreError, match="is not a checkpoint"):
        read_checkpoint(path, digest)
