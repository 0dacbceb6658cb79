import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.cli.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_is_said_once_the_second_ends_the_patience(number: int) -> None:
    said: list[int] = []
    with Interrupts(60, lambda: said.append(1)) as signals:
        assert not signals.stopping()
        os.kill(os.getpid(), number)
        assert signals.stopping()
        assert signals.patient()
        os.kill(os.getpid(), number)
        assert not signals.patient()
    assert said == [1]


def test_patience_ends_with_time() -> None:
    with Interrupts(0) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.stopping()
        assert not signals.patient()


def test_the_signals_are_given_back_whatever_happens() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), Interrupts(1):
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_in_another_thread_no_signal_is_taken_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def look() -> tuple[bool, list[object]]:
        with Interrupts(1) as signals:
            return signals.stopping(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with ThreadPoolExecutor(1) as other:
        assert other.submit(look).result() == (False, before)
