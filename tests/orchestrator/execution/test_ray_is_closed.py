"""An embedded Ray is closed: nobody without its token is answered, nobody elsewhere reaches it, and workers know no secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.environment import passed
from orchestrator.execution.ray_session import LOOPBACK, _environment, _settings

PROGRAM = """
import json, os, sys
import psutil, ray
from unittest import mock
from orchestrator.config.schema import RaySection
from orchestrator.execution import ray_session
from orchestrator.execution.ray_pool import map_on_ray

def look(shared, item):
    return dict(os.environ)

before = dict(os.environ)
section = RaySection(environment=("ASKED_FOR_*",))
with mock.patch.object(ray_session, "cores", return_value=1), ray_session.started(section):
    assert dict(os.environ) == before, "the user's environment stays"
    ((_, worker),) = map_on_ray(look, None, [0], section)
    started = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        (process.name(), str(socket.laddr.ip))
        for process in started for socket in process.net_connections("inet") if socket.status == psutil.CONN_LISTEN
    ]
    known = {}
    for process in started[1:]:
        known[process.name()] = sorted(process.environ())
    gcs = ray.get_runtime_context().gcs_address
    print(json.dumps({"gcs": gcs, "worker": worker, "listening": listening, "known": known}), flush=True)
    sys.stdin.readline()
"""
SECRETS = {"AWS_SECRET_ACCESS_KEY": "x", "HF_TOKEN": "x", "DATABASE_URL": "x", "RAY_AUTH_TOKEN": "of-another-cluster"}
CLIENT = """
import sys
from ray._raylet import GcsClient
try:
    found = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)
except Exception as error:
    print("refused:", type(error).__name__, error)
else:
    print("answered:", len(found))
"""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a process with an embedded Ray tells of it, and Ray itself meanwhile."""
    environment = {**os.environ, **SECRETS, "ASKED_FOR_BY_NAME": "here", "RAY_AUTH_MODE": "disabled"}
    here = Path(__file__).parents[3]
    environment["PYTHONPATH"] = str(here)
    command = [sys.executable, "-c", PROGRAM]
    place = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=place
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            assert process.wait(60) == 0


def test_it_listens_on_the_loopback_alone(embedded: dict[str, Any]) -> None:
    assert {"gcs_server", "raylet"} <= {name for name, _ in embedded["listening"]}
    assert {address.removeprefix("::ffff:") for _, address in embedded["listening"]} == {LOOPBACK}, embedded[
        "listening"
    ]
    assert embedded["gcs"].startswith(LOOPBACK)


def asked(address: str, settings: dict[str, str]) -> str:
    """Ask a cluster which nodes it has, from a process with these settings; return what came of it."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-c", CLIENT, address]
    return subprocess.run(command, capture_output=True, text=True, env={**environment, **settings}, timeout=60).stdout


@pytest.mark.parametrize(
    "settings",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}],
    ids=["no token", "another token"],
)
def test_a_client_without_the_token_is_refused(embedded: dict[str, Any], settings: dict[str, str]) -> None:
    assert asked(embedded["gcs"], settings).startswith("refused: AuthenticationError"), settings


def test_a_client_with_the_token_is_let_in(embedded: dict[str, Any]) -> None:
    """So that the refusals are the token's doing."""
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": embedded["worker"]["RAY_AUTH_TOKEN"]}
    assert asked(embedded["gcs"], settings).startswith("answered: 1")


def test_workers_and_rays_processes_get_a_part_of_the_environment(embedded: dict[str, Any]) -> None:
    worker = embedded["worker"]
    assert worker["PATH"] == os.environ["PATH"]
    assert worker["ASKED_FOR_BY_NAME"] == "here"
    assert worker["RAY_AUTH_TOKEN"] not in SECRETS.values()
    assert len(worker["RAY_AUTH_TOKEN"]) == 64
    unwanted = set(SECRETS) - {"RAY_AUTH_TOKEN"}
    assert unwanted & set(worker) == set()
    assert {name: found for name, keys in embedded["known"].items() if (found := unwanted & set(keys))} == {}
    assert {"gcs_server", "raylet"} <= set(embedded["known"])


def test_what_is_passed() -> None:
    shell = {
        "PATH": "p",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HOME": "h",
        "HF_TOKEN": "s",
    }
    shell |= {"AWS_PROFILE": "a", "CONDA_TOKEN": "s", "COUNTERFACTORY_DATA": "d", "MY_OWN": "m", "MY_TOKEN": "t"}
    assert list(passed(shell)) == [
        *("PATH", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME", "COUNTERFACTORY_DATA"),
    ]
    assert set(passed(shell, ["MY_*"])) - set(passed(shell)) == {"MY_OWN", "MY_TOKEN"}, "what is asked for is passed"


def test_the_users_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    before = dict(os.environ)
    with _environment(()):
        assert "HF_TOKEN" not in os.environ
        assert os.environ["RAY_AUTH_TOKEN"] != "theirs"
    assert dict(os.environ) == before
    with _settings({"RAY_x": "1"}):
        assert {**before, "RAY_x": "1"} == dict(os.environ), "to join a cluster of one's own cuts nothing"
    assert dict(os.environ) == before
