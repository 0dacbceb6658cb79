"""One .npz: masks, seeds, subsets, repeats, states and outputs of every design as arrays, and every attribution (n, t)."""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np

from orchestrator.stages.export.request import Exported, Request
from orchestrator.store.attributions import list_attributions, read_attribution


def write(request: Request) -> Exported:
    """Write every run, finished or not, and every attribution."""
    store, paths = request.store, request.sweep.paths
    arrays: dict[str, np.ndarray] = {}
    for name in store.designs:
        arrays |= {
            f"{name}/masks": store.masks(name),
            f"{name}/seeds": store.seeds(name),
            f"{name}/subsets": store.subsets(name),
            f"{name}/repeats": store.repeats(name),
            f"{name}/states": store.states(name),
        }
        if (weights := store.weights(name)) is not None:
            arrays[f"{name}/weights"] = weights
        for measure in store.measures:
            arrays[f"{name}/outputs/{measure}"] = store.outputs(name, measure)
    for label in list_attributions(paths):
        arrays[f"attributions/{label}"] = read_attribution(paths, label).values
    with zipfile.ZipFile(request.target, "w") as archive:
        for name, array in arrays.items():
            buffer = BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            # Masks shrink to an eighth at any level; floats hardly shrink, and would take most of the time.
            kind = zipfile.ZIP_STORED if np.issubdtype(array.dtype, np.floating) else zipfile.ZIP_DEFLATED
            archive.writestr(f"{name}.npy", buffer.getbuffer(), kind, compresslevel=1)
    return Exported(len(arrays), "arrays")
