"""Checkpoints on disk: safetensors files that anyone can read, with epoch, step and learning rate as metadata.

PyTorch is imported where tensors are written or read, and nowhere else: most of what opens a store never sees one.
"""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.store.damage import REMEDY
from orchestrator.store.durable import refusing, write_atomically
from orchestrator.store.hashes import content_hash
from orchestrator.store.plain_files import is_there, read_plain
from workers.errors import StoreError
from workers.runs import Checkpoint

OPTIMIZER = "optimizer/"
"""What the names of the optimizer's tensors begin with, in the file; no parameter's do."""


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint, atomically and durably; return the hash of its bytes."""
    from safetensors.torch import save

    metadata = {
        "epoch": str(checkpoint.epoch),
        "step": str(checkpoint.step),
        "learning_rate": repr(checkpoint.learning_rate),
    }
    # Cloned, because safetensors refuses tensors that share memory (tied weights).
    held = dict(checkpoint.state)
    if checkpoint.optimizer is not None:
        metadata["optimizer_state"] = "kept"
        held |= {f"{OPTIMIZER}{name}": tensor for name, tensor in checkpoint.optimizer.items()}
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in held.items()}
    content = _canonical(save(state, metadata))
    write_atomically(path, content)
    return content_hash(content)


def _canonical(content: bytes) -> bytes:
    """Return the same file with its metadata sorted: safetensors writes them in an order that changes from call to call."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def checkpoint_hash(path: Path) -> str | None:
    """Return the hash of a checkpoint's bytes, or None when there is no such file."""
    with refusing("read", path):
        return content_hash(read_plain(path)) if is_there(path) else None


def read_checkpoint(path: Path, expected_hash: str) -> Checkpoint:
    """Return a checkpoint. Raises StoreError when the file is missing or is not the one whose hash is expected."""
    from safetensors.torch import load

    with refusing("read", path):
        content = read_plain(path)
    if content_hash(content) != expected_hash:
        raise StoreError(f"{path} is damaged: {REMEDY}")
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = _metadata(content[8 : 8 + length])
        held = load(content)
        optimizer = {name: held.pop(name) for name in list(held) if name.startswith(OPTIMIZER)}
        return Checkpoint(
            epoch=int(metadata["epoch"]),
            step=int(metadata["step"]),
            learning_rate=float(metadata["learning_rate"]),
            state=held,
            optimizer={name.removeprefix(OPTIMIZER): value for name, value in optimizer.items()}
            if "optimizer_state" in metadata
            else None,
        )
    except Exception as error:  # whatever a parser meets in a stranger's bytes, whose hash a stranger wrote too
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StoreError(f"{path} is not a checkpoint of counterfactory: {reason}") from error


def _metadata(header: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors header (JSON; its key is fixed by the format)."""
    found: dict[str, str] = json.loads(header)["__metadata__"]
    return found
