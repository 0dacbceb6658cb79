"""Ctrl-C while runs are in flight: the first one stops launching and waits a while, the second gives up at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C that was answered in order: what was in flight is kept, and how to go on was said."""


class Interrupts:
    """Counts SIGINT and SIGTERM while the context is open, instead of dying of them.

    Only the main thread hears signals; in any other this counts none.
    """

    def __init__(self, patience: float, on_first: Callable[[], None] = lambda: None):
        self._patience = patience
        self._on_first = on_first
        self._count = 0
        self._announced = False
        self._first = 0.0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        """Take over the two signals."""
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            self._first = time.monotonic()

    def stopping(self) -> bool:
        """Say whether a signal has come; the first time that it has, `on_first` is called.

        Here and not in the handler: that may interrupt a write to the very stream that `on_first` writes to.
        """
        if self._count and not self._announced:
            self._announced = True
            self._on_first()
        return self._count > 0

    def patient(self) -> bool:
        """Say whether what is in flight may still be waited for."""
        return self._count < 2 and time.monotonic() - self._first < self._patience
