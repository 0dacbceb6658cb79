"""Whose session Ray's is, how long it lives and where it starts: with a Ray that starts nothing."""

import faulthandler
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.schema import RaySection
from orchestrator.execution import ray_session
from orchestrator.execution.ray_session import started
from workers.errors import ConfigError, CounterfactoryError

LOCAL = RaySection()


@dataclass
class FakeRay:
    """Notes what is asked of it, and in which thread."""

    running: bool = False
    calls: list[str] = field(default_factory=list)
    owners: list[threading.Thread] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    on_init: Callable[[], None] = lambda: None

    def is_initialized(self) -> bool:
        return self.running

    def init(self, *, address: str, **options: Any) -> None:
        self.calls.append(f"init {address}")
        self.owners.append(threading.current_thread())
        self.folders.append(Path.cwd())
        self.on_init()
        self.running = True

    def shutdown(self) -> None:
        assert self.folders[-1].is_dir(), "the workers live in it"
        self.calls.append("shutdown")
        self.running = False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_session, "ray", fake)
    monkeypatch.setattr(ray_session, "_session", None)
    monkeypatch.setattr(ray_session, "_refuse_open", lambda: None)
    monkeypatch.setattr(ray_session, "_forget_token", lambda: None)  # a real session of this process needs its own
    return fake


def test_nested_uses_share_a_session_that_ends_with_the_last(ray: FakeRay) -> None:
    with started(LOCAL):
        with started(LOCAL):
            assert ray.calls == ["init local"]
        assert ray.running
    assert ray.calls == ["init local", "shutdown"]
    with started(LOCAL):
        pass
    assert ray.calls == ["init local", "shutdown"] * 2


def test_a_thread_that_ends_takes_no_session_from_another(ray: FakeRay) -> None:
    first_in, second_in = threading.Event(), threading.Event()

    def first() -> None:
        with started(LOCAL):
            first_in.set()
            assert second_in.wait(10)

    def second() -> bool:
        assert first_in.wait(10)
        with started(LOCAL):
            second_in.set()
            one.join()
            return ray.running and ray.owners[0].is_alive()

    one = threading.Thread(target=first)
    one.start()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(second).result()
    assert ray.calls == ["init local", "shutdown"]
    assert ray.owners[0] is not one, "what the system kills with the thread that started it must outlive any user"


def test_two_that_start_at_once_start_one(ray: FakeRay) -> None:
    inside, both = threading.Event(), threading.Barrier(2, timeout=10)
    ray.on_init = lambda: inside.wait(0.1) and None

    def use() -> None:
        with started(LOCAL):
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(use), pool.submit(use)]:
            one.result()
    assert ray.calls == ["init local", "shutdown"]


@pytest.mark.parametrize("address", ["local", "ray.example:6379"])
def test_a_session_of_somebody_else_s_is_refused_and_left_alone(ray: FakeRay, address: str) -> None:
    ray.running = True
    with (
        pytest.raises(ConfigError, match=r"counterfactory did not start.* call ray\.shutdown\(\) first"),
        started(RaySection(address=address)),
    ):
        raise AssertionError("entered")
    assert ray.running
    assert ray.calls == []


def test_another_address_is_refused_while_one_is_in_use(ray: FakeRay) -> None:
    other = RaySection(address="ray.example:6379")
    with started(LOCAL):
        with (
            pytest.raises(ConfigError, match=r"'ray\.example:6379' is asked for while this process uses 'local'"),
            started(other),
        ):
            raise AssertionError("entered")
        assert ray.running
    with started(other):
        assert ray.calls[-1] == "init ray.example:6379"


def test_a_session_that_was_shut_down_from_outside_is_not_used_further(ray: FakeRay) -> None:
    with started(LOCAL):
        ray.running = False
        with pytest.raises(CounterfactoryError, match="shut down from outside"), started(LOCAL):
            raise AssertionError("entered")


def test_ray_starts_in_an_empty_folder_and_nobody_else_is_moved(ray: FakeRay) -> None:
    here, seen = Path.cwd(), []
    asked, told = threading.Event(), threading.Event()

    def look() -> None:
        assert asked.wait(10)
        seen.append(Path.cwd())
        told.set()

    def on_init() -> None:
        assert list(Path.cwd().iterdir()) == []
        asked.set()
        assert told.wait(10)

    ray.on_init = on_init
    bystander = threading.Thread(target=look)
    bystander.start()
    with started(LOCAL):
        assert ray.folders[0].is_dir()
        assert Path.cwd() == here
    bystander.join()
    assert ray.folders[0] != here
    assert not ray.folders[0].exists()
    with ThreadPoolExecutor(1) as other:
        if other.submit(ray_session.move_alone).result():
            assert seen == [here]


@pytest.mark.parametrize("error", [ConnectionError("nobody there"), ValueError("no such address")])
def test_a_start_that_fails_is_one_line_and_leaves_nothing(ray: FakeRay, error: Exception) -> None:
    def on_init() -> None:
        raise error

    ray.on_init, environment = on_init, dict(os.environ)
    with pytest.raises(ConfigError, match=f"cannot use 'local': {error}"), started(LOCAL):
        raise AssertionError("entered")
    assert dict(os.environ) == environment
    ray.on_init = lambda: None
    with started(LOCAL):
        assert ray.running


def test_what_cannot_even_begin_is_told_and_nobody_waits_for_it(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []

    def no_process(folder: str) -> None:
        raise BlockingIOError("no more processes")

    def use() -> None:
        try:
            with started(LOCAL):
                raise AssertionError("entered")
        except OSError as error:
            told.append(error)

    monkeypatch.setattr(ray_session, "Watchdog", no_process)
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(10)
    assert [str(error) for error in told] == ["no more processes"]
    assert ray.calls == []


def test_a_polite_end_is_heard_as_before_whatever_ray_put_in_place(ray: FakeRay) -> None:
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with open(os.devnull, "w") as nowhere:
            ray.on_init = lambda: faulthandler.register(signal.SIGTERM, file=nowhere)  # as Ray does: below Python
            with started(LOCAL):
                os.kill(os.getpid(), signal.SIGTERM)
            faulthandler.unregister(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, former)
    assert heard == [signal.SIGTERM]
