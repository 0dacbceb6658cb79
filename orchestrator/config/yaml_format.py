"""YAML as people mean it: `1e-3` is a number, `10:50` is no count of minutes, and no key is given twice.

PyYAML reads by YAML 1.1, which has it otherwise; loading and dumping here agree with each other.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

YAMLError = yaml.YAMLError
"""What `load` raises."""
MOST = 10**7
"""Values of a document, aliases written out."""
_INT = re.compile(r"[-+]?(0b[0-1_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"([-+]?(\.[0-9_]+|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
_BREAKS = re.compile("[\x85\u2028\u2029]")
_NUMBERS = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}


def load(text: str) -> Any:
    """Return the document in `text` as plain data. Raises yaml.YAMLError."""
    try:
        value = yaml.load(text, Loader=_Loader)
        _refuse_endless(value)
        return value
    except RecursionError as error:
        raise yaml.YAMLError("sections within sections without end") from error
    except ValueError as error:  # what looks like a date or a number and is none: 2024-02-30, 0x_
        raise yaml.YAMLError(str(error)) from error


def _refuse_endless(value: Any) -> None:
    """Raise YAMLError for a document whose aliases, written out, are more than anybody wrote: ten lines can mean billions."""
    seen, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            seen += len(one)
            left += one.values() if isinstance(one, dict) else one
        if seen > MOST:
            raise yaml.YAMLError(f"more than {MOST:,} values, its aliases written out")


def dump(value: Any) -> str:
    """Return plain data as a document that `load` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing the second of two equal keys instead of the first's loss."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape Unicode's line breaks: PyYAML writes them into plain and single-quoted text, and reads a space there."""
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _resolve_numbers(kind: type[yaml.SafeLoader] | type[yaml.SafeDumper]) -> None:
    """Give a loader or dumper the rules above for what is a number."""
    kind.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag not in _NUMBERS]
        for first, rules in kind.yaml_implicit_resolvers.items()
    }
    for tag, rule in _NUMBERS.items():
        kind.add_implicit_resolver(tag, rule, list("-+.0123456789"))


for _kind in (_Loader, _Dumper):
    _resolve_numbers(_kind)
