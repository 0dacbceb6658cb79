"""Runs and attributions in formats that other programs read: a file a format, or a kind of formats; all named in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.stages.export import dattri, folders, forms, kronfluence, npz, parquet
from orchestrator.stages.export.request import Exported, Request
from workers.errors import ConfigError, StoreError, near

__all__ = ["FORMATS", "Exported", "Request", "export"]


@dataclass(frozen=True)
class Format:
    """One format."""

    write: Callable[[Request], Exported]
    is_folder: bool = True
    """Whether it is a folder of finished runs; else one file, named by its ending, of all runs."""


FORMATS: Mapping[str, Format] = {
    "parquet": Format(parquet.write, is_folder=False),
    "npz": Format(npz.write, is_folder=False),
    "npy": Format(partial(folders.write, form=forms.dense, save=forms.npy)),
    "npy-indices": Format(partial(folders.write, form=forms.indices, save=forms.npy)),
    "npy-packed": Format(partial(folders.write, form=forms.packed, save=forms.npy)),
    "pt": Format(partial(folders.write, form=forms.dense, save=forms.tensor)),
    "pt-indices": Format(partial(folders.write, form=forms.indices, save=forms.tensor)),
    "kronfluence": Format(kronfluence.write),
    "dattri": Format(dattri.write),
}
"""By name; `counterfactory export --help` says what each is."""


def export(request: Request, name: str | None = None) -> Exported:
    """Write a sweep in a format; without a name, in that of the target's ending.

    Raises ConfigError for what the format cannot hold, StoreError where it cannot be written.
    """
    target = request.target
    chosen = _format(request, name)
    if not target.resolve().parent.is_dir():
        raise StoreError(f"--to {target}: there is no folder {target.resolve().parent}")
    try:
        return chosen.write(request)
    except OSError as error:
        raise StoreError(f"--to {target}: cannot be written: {error}") from error


def _format(request: Request, name: str | None) -> Format:
    """Return the format asked for. Raises ConfigError for a name, an ending or an option that does not fit."""
    ending = request.target.suffix.removeprefix(".")
    if name is None:
        name = ending
        if name not in FORMATS or FORMATS[name].is_folder:
            of_folders = ", ".join(one for one, found in FORMATS.items() if found.is_folder)
            raise ConfigError(
                f"--to {request.target}: expected a name that ends in .parquet or .npz, or a --format for a folder: {of_folders}"
            )
    if name not in FORMATS:
        raise ConfigError(f"--format: no format {name!r}: {near(name, list(FORMATS))}")
    found = FORMATS[name]
    if not found.is_folder:
        if ending != name:
            raise ConfigError(f"--to {request.target}: expected a name that ends in .{name}")
        if request.design or request.measure or request.mean:
            raise ConfigError(f"--design, --measure and --mean-of-seeds go with folders; .{name} holds everything")
    request.designs(), request.measures()
    return found
