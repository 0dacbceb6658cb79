"""quanda's subsets: a YAML file of lists of kept examples; the outputs are an array that was computed from its models."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.config import yaml_format
from orchestrator.imports.files import outputs_file
from orchestrator.imports.foreign_runs import ForeignRuns, match
from orchestrator.imports.sparse_masks import SparseMasks
from workers.errors import ConfigError, DataError

NAME = "lds_subsets.yaml"
BLOCKS = re.compile(r"(?:- - \d+\n(?:  - \d+\n)*)+")
"""What `yaml.safe_dump` writes of lists of integers; other styles are read by a YAML parser, a hundred times slower."""


def detect(source: Path) -> bool:
    """Say whether a source looks like this."""
    return source.suffix in (".yaml", ".yml") if source.is_file() else (source / NAME).is_file()


def read(source: Path, outputs: str | None, n: int | None) -> ForeignRuns:
    """Return the runs of such a file, or of the folder that has it. Raises DataError, ConfigError."""
    path = source if source.is_file() else source / NAME
    if n is None:
        raise ConfigError(f"{path}: does not say how many training examples there were; give --n")
    masks = SparseMasks.of(_lists(path), n, str(path))
    return match("quanda subsets", source, masks, outputs_file(source, path, outputs))


def _lists(path: Path) -> list[NDArray[np.int64]]:
    try:
        text = path.read_text(encoding="utf-8")
        if BLOCKS.fullmatch(text):
            blocks = re.split(r"^- - ", text, flags=re.MULTILINE)[1:]
            return [np.array(block.replace("-", "").split(), dtype=np.int64) for block in blocks]
        found = yaml_format.load(text)
    except (OSError, ValueError, yaml_format.YAMLError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    good = isinstance(found, list) and found and all(isinstance(one, list) for one in found)
    # An alias repeats a list at no cost in the file; a list of lists of numbers has no more of them than characters.
    if not good or sum(map(len, found)) > len(text):
        raise DataError(f"{path}: expected lists of the examples that each model was trained on")
    if not all(type(example) is int for one in found for example in one):
        raise DataError(f"{path}: expected whole numbers in its lists")
    return [np.array(one, dtype=np.int64) for one in found]
