"""Seals that only this user can make: of what a sweep says of the code that it runs.

The secret stays in the user's cache folder: a stranger's sweep cannot claim to be the user's own, nor can one of the user's that
a stranger changed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from contextlib import suppress

from workers.machine import cache_folder


def seal_of(told: object) -> str:
    """Return this user's seal of plain data."""
    return hmac.new(_secret(), json.dumps(told, sort_keys=True).encode(), hashlib.sha256).hexdigest()[:32]


def is_sealed(told: object, seal: str) -> bool:
    """Say whether a seal is this user's own, of just that."""
    return hmac.compare_digest(seal.encode(), seal_of(told).encode())


def _secret() -> bytes:
    """Return this user's secret, made the first time."""
    path = cache_folder() / "secret"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=path.parent) as part:  # readable by nobody else
            part.write(secrets.token_bytes(32))
            part.flush()
            with suppress(FileExistsError):  # another process was first
                os.link(part.name, path)
    return path.read_bytes()
