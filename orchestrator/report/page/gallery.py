"""The gallery: a few queries, and the training examples that help and harm them most according to each estimator."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orchestrator.report import text
from orchestrator.report.data import ReportData, Utilities
from orchestrator.report.page.leaderboard import Entry
from orchestrator.scoring.suspects import Suspects
from workers.errors import DataError

_LARGEST = 192
"""Side, in pixels, above which a picture is made smaller."""


@dataclass(frozen=True)
class Exhibit:
    """One example as the page shows it: a picture or a text, with what is written under it."""

    name: str
    """What it is, such as "training example 17"."""
    label: str
    """Empty where the task has no labels."""
    picture: str
    """data: URI of a PNG; empty for a text."""
    words: str
    pixelated: bool
    """Whether the picture is so small that it is best shown with hard pixels."""
    value: str = ""
    """Its attribution."""

    @property
    def description(self) -> str:
        """Alternative text."""
        return ", ".join(part for part in (self.name, f"label {self.label}" if self.label else "", self.value) if part)


@dataclass(frozen=True)
class Wing:
    """What one estimator says of one query: the examples at both ends of its attribution."""

    estimator: str
    raising: tuple[Exhibit, ...]
    """Whose inclusion raises the measured output most, the strongest first."""
    lowering: tuple[Exhibit, ...]


@dataclass(frozen=True)
class Case:
    """One query with the wings of each estimator."""

    query: Exhibit
    lds: str
    wings: tuple[Wing, ...]


def spread(values: NDArray[np.floating], count: int) -> list[int]:
    """Return at most `count` positions, evenly spaced in rank from the largest finite value to the smallest."""
    order = np.argsort(-values, kind="stable")
    order = order[np.isfinite(values[order])]
    if not len(order):
        return []
    ranks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[rank]) for rank in ranks]


def cases(
    data: ReportData, shown: Sequence[Entry], lds: NDArray[np.floating], queries: Sequence[int], k: int = 6
) -> tuple[Case, ...]:
    """Return a case a query, with the `k` strongest examples at each end; none when the task cannot show its examples.

    `lds` (t,) is what is written beside each query: how well the best estimator predicts it.
    """
    if data.show is None:
        return ()
    return tuple(
        Case(
            _exhibit(data, data.queries.source, _position(data, query)),
            text.decimal(float(lds[query]), 2),
            tuple(_wing(data, entry.estimator, query, k) for entry in shown),
        )
        for query in queries
    )


def _position(data: ReportData, query: int) -> int:
    return query if data.queries.indices is None else data.queries.indices[query]


def _wing(data: ReportData, estimator: str, query: int, k: int) -> Wing:
    tau = data.attributions[estimator][:, query]
    order = np.argsort(tau, kind="stable")
    lowering = [_exhibit(data, "train", int(i), float(tau[i])) for i in order[:k] if tau[i] < 0]
    raising = [_exhibit(data, "train", int(i), float(tau[i])) for i in order[::-1][:k] if tau[i] > 0]
    return Wing(estimator, tuple(raising), tuple(lowering))


def valued(data: ReportData, one: Utilities, k: int = 8) -> Wing:
    """Return the `k` examples worth most and the `k` worth least, with their intervals; the task must show its examples."""
    order = np.argsort(one.values, kind="stable")

    def shown(i: int) -> Exhibit:
        known = np.isfinite(one.low[i])
        interval = f" ({text.signed(float(one.low[i]))} to {text.signed(float(one.high[i]))})" if known else ""
        return replace(_exhibit(data, "train", i), value=text.signed(float(one.values[i])) + interval)

    return Wing(one.estimator, tuple(shown(int(i)) for i in order[::-1][:k]), tuple(shown(int(i)) for i in order[:k]))


def suspected(data: ReportData, found: Suspects) -> tuple[Exhibit, ...]:
    """Return the suspects as the page shows them; where the task shows no examples, by number and label alone."""
    numbers = zip(found.examples, found.suspicion, strict=True)
    exhibits = [_exhibit(data, "train", int(example), float(number)) for example, number in numbers]
    if found.mislabelled is None:
        return tuple(exhibits)
    return tuple(
        replace(one, value=f"{one.value}, {'mislabelled' if wrong else 'not mislabelled'}")
        for one, wrong in zip(exhibits, found.mislabelled, strict=True)
    )


def _exhibit(data: ReportData, source: str, index: int, value: float | None = None) -> Exhibit:
    shown = "" if data.show is None else data.show(source, index)
    kind = "training example" if source == "train" else "query"
    picture, pixelated = ("", False) if isinstance(shown, str) else _png(shown, f"{source} example {index}")
    return Exhibit(
        name=f"{kind} {index}",
        label=data.label(source, index) if data.label else "",
        picture=picture,
        words=shown if isinstance(shown, str) else "",
        pixelated=pixelated,
        value="" if value is None else text.signed(value),
    )


def _png(pixels: NDArray[np.uint8], where: str) -> tuple[str, bool]:
    """Return the image as a data: URI, and whether it is small enough to be shown with hard pixels."""
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise DataError(
            f"the task's picture of {where} is {pixels.dtype} {pixels.shape}, expected uint8 (h, w) or (h, w, 3)"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    pixelated = max(image.size) <= 64
    image.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), pixelated
