"""The small files beside the runs (JSON, Parquet): what they hold, or one line that names the file and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.store.plain_files import read_plain
from workers.errors import StoreError

Content = TypeVar("Content")


def read_file(path: Path, remedy: str, parse: Callable[[bytes], Content]) -> Content | None:
    """Return what `parse` makes of a file's bytes; None where there is no file.

    Raises StoreError, one line that ends with the `remedy`, where it cannot be read or `parse` finds that it makes no sense.
    """
    try:
        return parse(read_plain(path))
    except FileNotFoundError:
        return None
    except StoreError as error:  # a link, a folder
        raise StoreError(f"{error}: {remedy}") from error
    except PermissionError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}): {remedy}") from error
    except Exception as error:  # whatever a parser meets in bytes that make no sense: any class there is
        raise StoreError(f"{path} is damaged ({_reason(error)}): {remedy}") from error


def read_json(path: Path, remedy: str, parse: Callable[[Any], Content]) -> Content | None:
    """Return what `parse` makes of a JSON file, as `read_file` does."""
    return read_file(path, remedy, lambda content: parse(json.loads(content)))


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
