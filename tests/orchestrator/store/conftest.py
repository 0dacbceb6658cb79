import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.store.run_store import RunStore
from orchestrator.store.testing import Folder, Make


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[RunStore]], Make]:
    """folders(kind)() is a new folder for a store of that kind; nobody waits for the disk, no test takes the power away."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    numbers = itertools.count()
    return lambda kind: lambda: Folder(tmp_path / str(next(numbers)), kind)
