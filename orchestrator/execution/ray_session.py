"""Ray, started or joined for as long as it is needed.

A process has one session of ours at a time, which all that need Ray share, nested or in several threads: the first starts it, the
last one out stops it. A session that somebody else started is never used.

An embedded one (`address: local`) listens on this machine's loopback alone, answers only those who have a token that is drawn for
it, and its processes get a part of the environment (environment.py). Nothing of that is left to Ray's defaults, and it is looked
at once Ray is there. A cluster of the user's own keeps its own settings.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Lock, Thread, current_thread, main_thread

import ray
from ray._private import ray_constants
from ray._raylet import (  # type: ignore[attr-defined]
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    get_authentication_mode,
)

from orchestrator.config.schema import RaySection
from orchestrator.execution.environment import passed
from orchestrator.execution.resources import room_on
from orchestrator.execution.watchdog import Watchdog
from workers.errors import ConfigError, CounterfactoryError
from workers.machine import cores

_CLONE_FS = 0x200
"""Of Linux's <sched.h>: a thread that unshares it has a working directory of its own."""
LOOPBACK = "127.0.0.1"


@contextmanager
def started(settings: RaySection) -> Iterator[None]:
    """Start Ray or join the cluster named, unless that is done already; stop what was started when nobody needs it any more.

    Raises ConfigError where Ray cannot be started, or where this process uses a session of somebody else's or of another address.
    """
    _enter(settings.address, settings.environment)
    try:
        yield
    finally:
        _leave()


class _Session:
    """Ray from its start to its end, in a thread of its own.

    Ray's processes are killed when the thread that started them ends; a user of the session may end before another.
    """

    def __init__(self, address: str, environment: tuple[str, ...]):
        self.address, self.environment, self.users = address, environment, 1
        self._error: Exception | None = None
        self._ready, self._over = Event(), Event()
        self._thread = Thread(target=self._live, name="counterfactory-ray", daemon=True)
        self._thread.start()
        try:
            self._ready.wait()
        except BaseException:  # Ctrl-C: what is starting is to end
            self.stop()
            raise
        _hear_terminate()
        if isinstance(self._error, (ConnectionError, RuntimeError, ValueError)):
            raise ConfigError(f"ray.address: cannot use {address!r}: {self._error}") from self._error
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Stop Ray and wait for its end."""
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="counterfactory-") as empty, _watched(self.address, empty):
                _start(self.address, self.environment, empty)
                self._ready.set()
                self._over.wait()
                ray.shutdown()
                _forget_token()
        except Exception as error:
            if self._ready.is_set():  # whoever waited for the start has gone on
                raise
            self._error = error
        finally:
            self._ready.set()


@contextmanager
def _watched(address: str, folder: str) -> Iterator[None]:
    """Have what an embedded Ray starts from a folder ended when the driver is, even where it is killed."""
    if address != "local":
        yield  # nothing is started
        return
    watchdog = Watchdog(folder)
    try:
        yield
    finally:
        watchdog.stop()


def _hear_terminate() -> None:
    """Put Python's handler of SIGTERM back in its place: Ray's own prints a trace, and aborts the process seconds later.

    Only the main thread can; a session that another one starts leaves Ray's there.
    """
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


_LOCK = Lock()
_session: _Session | None = None


def _enter(address: str, environment: tuple[str, ...]) -> None:
    """Use the session of this process, started if there is none."""
    global _session
    with _LOCK:
        if _session is None:
            if ray.is_initialized():
                raise ConfigError(
                    f"ray.address: this process has a Ray session that counterfactory did not start, and {address!r} does not "
                    "mean that one; call ray.shutdown() first, or run the sweep in a process of its own"
                )
            _session = _Session(address, environment)
            gc.freeze()  # all that is imported stays: a full collection need not look through it while workers wait
            return
        if not ray.is_initialized():
            raise CounterfactoryError("ray: the session was shut down from outside while it was in use")
        if _session.address != address:
            raise ConfigError(
                f"ray.address: {address!r} is asked for while this process uses {_session.address!r}; "
                "run one sweep after the other, or in a process of its own"
            )
        if _session.environment != environment:
            raise ConfigError(
                f"ray.environment: {list(environment)} is asked for while this process's workers were started with "
                f"{list(_session.environment)}; run one sweep after the other, or in a process of its own"
            )
        _session.users += 1


def _leave() -> None:
    """Use the session no more; the last one stops it."""
    global _session
    with _LOCK:
        assert _session is not None, "entered before"
        _session.users -= 1
        if _session.users:
            return
        gc.unfreeze()
        ended, _session = _session, None
        ended.stop()


def _start(address: str, environment: tuple[str, ...], empty: str) -> None:
    """Start or join, from the folder `empty`.

    Ray puts the driver's working directory first on every worker's module path. Our packages have common names, so from a
    user's folder with a `workers.py` of its own the workers would import that one; from an empty folder they cannot.
    """
    local = address == "local"
    with _working_in(empty), _environment(environment) if local else _settings(_ANYWHERE):
        _forget_token()
        ray.init(
            address=address,
            num_cpus=cores() if local else None,
            include_dashboard=False if local else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    if local:
        _refuse_open()


def _refuse_open() -> None:
    """Raise RuntimeError, with Ray stopped, where an embedded Ray can be reached from elsewhere, or by anybody."""
    here = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    if here != LOOPBACK or get_authentication_mode() != AuthenticationMode.TOKEN:
        ray.shutdown()
        _forget_token()
        raise RuntimeError(
            f"Ray {ray.__version__} listens on {here}, or asks for no token; expected {LOOPBACK} and a token"
        )


def _forget_token() -> None:
    """Let Ray read anew from the environment whether it is to use a token, and which: it keeps both for the process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _working_in(folder: str) -> Iterator[None]:
    """Work in a folder: this thread alone, where the system lets it have a working directory of its own; else the process."""
    move_alone()
    here = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def move_alone() -> bool:
    """Give this thread a working directory of its own; say whether the system does that (Linux, unless it is forbidden)."""
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    return unshare is not None and unshare(_CLONE_FS) == 0


_ANYWHERE = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default Ray starts a task that was killed for its memory again, for ever; here its pack is halved instead.
    "RAY_task_oom_retries": "0",
}
"""What Ray is told by its environment, unless the user tells it otherwise."""


@contextmanager
def _settings(wanted: Mapping[str, str]) -> Iterator[None]:
    """Give Ray its settings for the time of its start: it reads these once, and they are not ours to keep changed."""
    former = dict(os.environ)
    os.environ.update({key: value for key, value in wanted.items() if key not in former})
    try:
        yield
    finally:
        _become(former)


@contextmanager
def _environment(besides: tuple[str, ...]) -> Iterator[None]:
    """Let this process have, for the time of its start, the environment that an embedded Ray and its workers are to have.

    Ray starts its processes with what the driver has then: what is missing never reaches them.
    """
    former, cluster = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",  # no cluster: its processes listen on the loopback alone
    }
    _become({**_ANYWHERE, **passed(former, besides), **ours})
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        _become(former)


def _become(environment: Mapping[str, str]) -> None:
    """Make the environment of this process that one; what is the same is not touched."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})


def nodes_room(settings: RaySection) -> int:
    """Return how many packs have room on the nodes that Ray has. Raises ConfigError as `room_on` does."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return room_on(settings, nodes)
