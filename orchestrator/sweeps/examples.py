"""What a task tells of its examples, kept with the sweep: whoever looks at it later needs no task, and runs none of its code.

`examples.parquet` has a row an example: `source` (train or task), `index`, and, null where the task tells no such thing, `label`,
`mislabelled` (of training examples), `text`, or a picture: `pixels` (uint8, row by row), `height`, `width`, `channels`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.durable import write_atomically
from orchestrator.store.parquet_files import read_parquet
from orchestrator.store.side_files import read_file
from orchestrator.sweeps.sweep import Sweep
from workers.errors import StoreError, TaskError
from workers.task_hooks import labeller_of, mislabelled, shower_of

if TYPE_CHECKING:
    import pyarrow as pa

Shown = NDArray[np.uint8] | str
"""An image (h, w) or (h, w, 3), or a text."""

ROOM = 2**29
"""Bytes that all pictures, or texts, may take: where examples are many, each is kept smaller."""
SMALLEST_SIDE, LARGEST_SIDE = 24, 192
"""Of a picture's longest side, in pixels."""
SHORTEST_TEXT = 200
"""Characters that are kept of any text."""
BLOCK = 4096
"""Rows that are written together."""


@dataclass(frozen=True)
class Examples:
    """What `examples.parquet` holds, read when it is asked for. Raises StoreError, naming the remedy, where it is damaged."""

    path: Path

    @cached_property
    def labels(self) -> dict[tuple[str, int], str]:
        """The labels by (source, index); none where the task names none."""
        rows = self._read("source", "index", "label")
        return {(source, index): label for source, index, label in rows if label is not None}

    @property
    def label(self) -> Callable[[str, int], str] | None:
        """`label(source, index)`, as the task's own; None where it names none."""
        return (lambda source, index: self.labels[source, index]) if self.labels else None

    @cached_property
    def mislabelled(self) -> NDArray[np.bool_] | None:
        """(n,) which training examples the task mislabelled on purpose; None where it mislabelled none."""
        flags = [
            (index, wrong) for source, index, wrong in self._read("source", "index", "mislabelled") if wrong is not None
        ]
        return np.array([wrong for _, wrong in sorted(flags)], dtype=np.bool_) if flags else None

    @property
    def show(self) -> Callable[[str, int], Shown] | None:
        """`show(source, index)`, as the task's own, perhaps smaller; None where it shows nothing."""
        return (lambda source, index: self._shown[source, index]()) if self._shown else None

    @cached_property
    def _shown(self) -> dict[tuple[str, int], Callable[[], Shown]]:
        rows = self._read("source", "index", "text", "pixels", "height", "width", "channels")
        try:
            return {
                (source, index): _reader(text, pixels, tuple(shape))
                for source, index, text, pixels, *shape in rows
                if text is not None or pixels is not None
            }
        except (ValueError, TypeError) as error:
            raise StoreError(f"{self.path} is damaged ({error}): {self._remedy}") from error

    def _read(self, *columns: str) -> list[tuple[Any, ...]]:
        def parse(content: bytes) -> list[tuple[Any, ...]]:
            table = read_parquet(content, columns)
            return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))

        return read_file(self.path, self._remedy, parse) or []

    @property
    def _remedy(self) -> str:
        return f"delete it, and `counterfactory retrain {self.path.parent}` writes it anew"


def _reader(text: str | None, pixels: bytes | None, shape: tuple[int, int, int]) -> Callable[[], Shown]:
    """Return what gives one example as it is looked at. Raises ValueError for pixels of another shape."""
    if pixels is None:
        return lambda: text or ""
    height, width, channels = shape
    if channels not in (1, 3) or len(pixels) != height * width * channels:
        raise ValueError(f"{len(pixels)} pixels are no picture of {height} x {width} x {channels}")
    size = (height, width) if channels == 1 else (height, width, channels)
    return lambda: np.frombuffer(pixels, dtype=np.uint8).reshape(size)


def keep_examples(sweep: Sweep) -> None:
    """Write what the task tells of its training examples and queries; nothing where it tells nothing.

    Raises TaskError, one line, where one of its hooks fails, or gives what cannot be shown.
    """
    task = sweep.task
    label, show, wrong = labeller_of(task), shower_of(task), mislabelled(task)
    if label is None and show is None and wrong is None:
        return
    from pyarrow import parquet

    places = [(source, index) for source, count in (("train", task.n), ("task", task.t)) for index in range(count)]
    room = ROOM // len(places)

    def row(source: str, index: int) -> dict[str, Any]:
        flag = None if wrong is None or source == "task" else bool(wrong[index])
        row: dict[str, Any] = {"source": source, "index": index, "mislabelled": flag}
        if label is not None:
            row["label"] = str(_asked(label, "label", source, index))
        if show is not None:
            row |= _kept(_asked(show, "show", source, index), f"show({source!r}, {index})", room)
        return row

    buffer = io.BytesIO()
    with parquet.ParquetWriter(buffer, _schema(), compression="zstd") as writer:
        for block in _blocks(places):
            writer.write_table(_table([row(*place) for place in block]))
    write_atomically(sweep.paths.examples, buffer.getvalue())


def _schema() -> pa.Schema:
    import pyarrow as pa

    size = [(name, pa.int32()) for name in ("height", "width", "channels")]
    words = [("source", pa.string()), ("index", pa.int64()), ("label", pa.string()), ("mislabelled", pa.bool_())]
    return pa.schema([*words, ("text", pa.string()), ("pixels", pa.binary()), *size])


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=_schema())


def _blocks(places: list[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    for start in range(0, len(places), BLOCK):
        yield places[start : start + BLOCK]


def _asked(hook: Callable[[str, int], Any], name: str, source: str, index: int) -> Any:
    try:
        return hook(source, index)
    except Exception as error:
        raise TaskError(f"the task's {name}({source!r}, {index}) failed: {type(error).__name__}: {error}") from error


def _kept(shown: Any, call: str, room: int) -> dict[str, Any]:
    """Return the columns of one example to look at, at most about `room` bytes of it."""
    if isinstance(shown, str):
        longest = max(SHORTEST_TEXT, room)
        return {"text": shown if len(shown) <= longest else f"{shown[: longest - 1]}…"}
    pixels = np.asarray(shown)
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise TaskError(
            f"the task's {call} is {pixels.dtype} {pixels.shape}, expected a text, or uint8 of shape (h, w) or (h, w, 3)"
        )
    side = min(LARGEST_SIDE, max(SMALLEST_SIDE, math.isqrt(room // 3)))
    if max(pixels.shape[:2]) > side:
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.thumbnail((side, side))
        pixels = np.asarray(image)
    height, width, channels = (*pixels.shape, 1)[:3]
    return {"pixels": pixels.tobytes(), "height": height, "width": width, "channels": channels}
