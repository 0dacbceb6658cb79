"""Which names look like a secret's, and what is left out by them."""

import pytest

from orchestrator.store.secret_names import LEFT_OUT, command_without_secrets, looks_secret, without_secrets

VALUE = "s3cr3t-value"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "token",
            "HF_TOKEN",
            "api_key",
            "apiKey",
            "X-API-KEY",
            "db_password",
            "clientSecret",
            "aws_secret_access_key",
        ),
        *("credentials", "private_key", "passphrase", "auth_token", "--api-key"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("tokenizer", "max_tokens", "tokens", "pad_token", "eos_token", "mask_token", "key", "keys", "keyboard"),
        *(
            "sort_key",
            "secretary",
            "n",
            "path",
            "seed",
            "passed",
            "tokenize",
            "token_type",
            "password_rounds",
            "secret_2_size",
        ),
    ],
)
def test_names_of_other_things(name: str) -> None:
    assert not looks_secret(name)


def test_what_decides_runs_is_kept_whatever_its_name() -> None:
    kept, left_out = without_secrets({"token_type": "bytes", "secret": 3, "token": 0.5, "hub": {"hf_token": VALUE}})
    assert kept == {"token_type": "bytes", "secret": 3, "token": 0.5, "hub": {}}
    assert left_out == ["hub.hf_token"]


def test_it_is_left_out_at_any_depth_and_nothing_else_is() -> None:
    plain = {"a": [{"token": VALUE, "n": 1}, "b"], "pair": (1, {"key": VALUE}), 3: {"password": None}, "secret": True}
    kept, left_out = without_secrets(plain)
    assert kept == {"a": [{"n": 1}, "b"], "pair": [1, {"key": VALUE}], 3: {"password": None}, "secret": True}
    assert left_out == ["a.0.token"]
    assert without_secrets({"api_key": ""}, "task") == ({}, ["task.api_key"])
    assert without_secrets("token") == ("token", [])


def test_command_lines() -> None:
    line = [
        "counterfactory",
        "run",
        "a.yaml",
        f"task.arguments.api_key={VALUE}",
        "seed=1",
        "--token",
        VALUE,
        f"--password={VALUE}",
    ]
    assert command_without_secrets(line) == (
        f"counterfactory run a.yaml task.arguments.api_key={LEFT_OUT} seed=1 --token {LEFT_OUT} --password={LEFT_OUT}"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--token", "a", "b"], f"--token {LEFT_OUT} b"),
        (["token", "a"], "token a"),
        (["--token=a", "b"], f"--token={LEFT_OUT} b"),
        (["--token", "x=y", "--seed", "1"], f"--token {LEFT_OUT} --seed 1"),
        (["api_key.n=1", "n.api_key=a=b"], f"api_key.n=1 n.api_key={LEFT_OUT}"),
        (["--token", "--token", "a"], f"--token {LEFT_OUT} {LEFT_OUT}"),
        ([], ""),
    ],
)
def test_what_follows_a_secret_s_name_is_hidden_and_no_more(arguments: list[str], said: str) -> None:
    assert command_without_secrets(arguments) == said
