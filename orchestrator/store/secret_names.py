"""What looks like a secret, by its name, and is not kept in a sweep's folder: a folder is copied, shared and published.

A name is split into words (api_key, apiKey and API-KEY are two), and the last one says what it is a name of: `token_type` and
`password_rounds` are no secrets, and decide what is trained. Numbers are none either, whatever their name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SECRET = frozenset(
    {"token", "secret", "secrets", "password", "passwd", "passphrase", "credential", "credentials", "apikey"}
)
"""Last words that make a name look like a secret's."""
KEYS = frozenset({"api", "access", "private", "secret", "signing", "encryption", "account"})
"""Words that do so before `key`."""
HARMLESS = frozenset(
    {"pad", "eos", "bos", "unk", "mask", "cls", "sep", "start", "end", "stop", "special", "extra", "next"}
)
"""Words before `token` of what a tokenizer calls so."""
LEFT_OUT = "(left out: looks like a secret)"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def looks_secret(name: str) -> bool:
    """Say whether a name is one of a secret.

    >>> from orchestrator.store.secret_names import looks_secret
    >>> names = ("api_key", "HF_TOKEN", "dbPassword", "max_tokens", "pad_token", "token_type", "key")
    >>> [name for name in names if looks_secret(name)]
    ['api_key', 'HF_TOKEN', 'dbPassword']
    """
    words = ["", "", *(word.lower() for word in _WORD.findall(name) if not word.isdigit())]
    before, last = words[-2:]
    if last == "key":
        return before in KEYS
    return last in SECRET and not (last == "token" and before in HARMLESS)


def without_secrets(plain: Any, where: str = "") -> tuple[Any, list[str]]:
    """Return plain data without what looks like a secret, and the dotted keys of that; numbers, true, false and null are none."""
    left_out: list[str] = []
    if isinstance(plain, Mapping):
        kept = {}
        for key, value in plain.items():
            place = f"{where}.{key}" if where else str(key)
            if looks_secret(str(key)) and value is not None and not isinstance(value, int | float):
                left_out.append(place)
            else:
                kept[key], inside = without_secrets(value, place)
                left_out += inside
        return kept, left_out
    if isinstance(plain, list | tuple):
        parts = [without_secrets(value, f"{where}.{number}") for number, value in enumerate(plain)]
        return [value for value, _ in parts], [place for _, inside in parts for place in inside]
    return plain, left_out


def command_without_secrets(arguments: Sequence[str]) -> str:
    """Return a command line in one text, without the values of a secret's `key=value`, `--key=value` and `--key value`."""
    said: list[str] = []
    hidden = False
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if hidden:
            said.append(LEFT_OUT)
        elif equals and looks_secret(key.rpartition(".")[2]):
            said.append(f"{key}={LEFT_OUT}")
        else:
            said.append(argument)
        hidden = not equals and argument.startswith("-") and looks_secret(argument)
    return " ".join(said)
