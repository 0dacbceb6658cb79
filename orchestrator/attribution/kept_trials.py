"""What was tried of a tuned estimator, kept until its attribution is written: an interrupted tuning goes on where it was."""

from __future__ import annotations

import json

import numpy as np

from estimators.contract import Attribution
from estimators.findings import Findings
from estimators.workspace import Arrays, Workspace
from orchestrator.store.hashes import content_hash
from orchestrator.store.strict_json import jsonable

_PIECE, _TOLD = "trial", "told"
_ARRAYS = ("values", "bias", "standard_error", "utility", "utility_standard_error")


def keep_trial(workspace: Workspace, made: Attribution, seconds: float) -> None:
    """Keep what was computed with one combination of options, and the time that it took, in its own workspace."""
    arrays = {name: array for name in _ARRAYS if (array := getattr(made, name)) is not None}
    told = {
        "seconds": seconds,
        "hash": _hash(arrays),
        "fitted_on": made.fitted_on,
        "models": made.models,
        "degrees_of_freedom": made.degrees_of_freedom if np.isfinite(made.degrees_of_freedom) else None,
        "details": {**made.details, **made.findings.to_json()},
    }
    plain = json.dumps(jsonable(told)).encode()
    workspace.keep(_PIECE, {**arrays, _TOLD: np.frombuffer(plain, np.uint8)})


def kept_trial(workspace: Workspace) -> tuple[Attribution, float] | None:
    """Return what an interrupted call kept, and the time that it took then; None where nothing is there that can be used."""
    found = workspace.kept(_PIECE)
    if found is None or _TOLD not in found:
        return None
    arrays = {name: np.array(array) for name, array in found.items() if name != _TOLD}
    try:
        told = json.loads(np.asarray(found[_TOLD]).tobytes())
        if set(arrays) - set(_ARRAYS) or told["hash"] != _hash(arrays):
            raise ValueError("it is not what was written")
    except (ValueError, KeyError, TypeError):
        workspace.say("what was tried of a tuned estimator is damaged: it is computed anew")
        return None
    freedom = np.inf if told["degrees_of_freedom"] is None else told["degrees_of_freedom"]
    details = told["details"]
    made = Attribution(
        **arrays,
        fitted_on=tuple(told["fitted_on"]),
        models=told["models"],
        details=details,
        degrees_of_freedom=freedom,
        findings=Findings.from_json(details),
    )
    return made, told["seconds"]


def _hash(arrays: Arrays) -> str:
    parts = (f"{name}{array.dtype}{array.shape}".encode() + array.tobytes() for name, array in sorted(arrays.items()))
    return content_hash(b"".join(parts))
