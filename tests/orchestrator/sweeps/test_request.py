"""What a person asks for, in any of its forms, is one sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.config.schema import Config
from orchestrator.designs.random_subsets import Subsets
from orchestrator.sweeps.request import requested
from workers.errors import ConfigError


@pytest.fixture
def path(tiny: dict[str, Any], tmp_path: Path) -> Path:
    written = tmp_path / "tiny.yaml"
    written.write_text(yaml.safe_dump(tiny, sort_keys=False))
    return written


def subsets(config: Config) -> int:
    design = config.designs["fit"]
    assert isinstance(design, Subsets)
    return design.subsets


def test_a_file_a_name_a_mapping_and_a_config_are_the_same(tiny: dict[str, Any], path: Path) -> None:
    of_file = requested(path, path.parent / "out").config
    assert isinstance(of_file, Config)
    assert requested(str(path)).config == of_file
    assert requested({**tiny, "folder": str(path.parent)}).config == of_file
    assert requested(of_file).config == of_file
    assert requested("digits").config.name == "digits"


def test_overrides_are_lines_or_a_mapping(path: Path) -> None:
    asked = {"designs.fit.subsets": 7, "estimators.trak": None, "seed": 3}
    of_mapping = requested(path, overrides=asked).config
    assert of_mapping == requested(path, overrides=["designs.fit.subsets=7", "estimators.trak=", "seed=3"]).config
    assert requested(requested(path).config, overrides=asked).config == of_mapping
    assert (subsets(of_mapping), of_mapping.seed, "trak" in of_mapping.estimators) == (7, 3, True)
    with pytest.raises(ConfigError, match="expected a list such as"):
        requested(path, overrides="seed=3")


def test_a_mapping_is_not_changed(tiny: dict[str, Any]) -> None:
    before = repr(tiny)
    requested(tiny, overrides={"designs.fit.subsets": 7})
    assert repr(tiny) == before


def test_a_sample_has_a_folder_of_its_own(path: Path) -> None:
    sampled = requested(path, sample=0.5)
    assert sampled.paths.root.name == "tiny-sample-0.5"
    assert subsets(sampled.config) == 10
    for fraction in (0, 2):
        with pytest.raises(ConfigError, match=f"sample {fraction}: expected a fraction"):
            requested(path, sample=fraction)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mesures": ["loss"]}, "unknown key 'mesures'"),
        ({"estimators": {"trakk": {}}}, "did you mean trak"),
        ({"designs": {"fit": {"kind": "subset"}}}, "unknown kind 'subset'"),
    ],
)
def test_mistakes_are_one_line(tiny: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        requested({**tiny, **change})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_values_are_taken_as_they_are(tiny: dict[str, Any]) -> None:
    arguments = {"path": Path("a.csv"), "text": "\N{GRINNING FACE}", "most": float("inf")}
    given = requested(
        {**tiny, "measures": np.array(["loss"])}, overrides={"seed": np.int64(9), "task.arguments": arguments}
    ).config
    assert (given.seed, given.measures) == (9, ("loss",))
    assert given.task.arguments == {"path": "a.csv", "text": "\N{GRINNING FACE}", "most": float("inf")}


def test_what_no_file_could_say_is_refused(tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="override 'seed': expected numbers, texts, lists and mappings, found object"):
        requested(tiny, overrides={"seed": object()})
    with pytest.raises(ConfigError, match="folder: "):
        requested({**tiny, "folder": 3})
    with pytest.raises(ConfigError, match="the value is not YAML: day is out of range"):
        requested(tiny, overrides=["name=2024-02-30"])


@pytest.mark.parametrize("config", [3, None, ["digits"]])
def test_what_is_no_configuration_is_said_in_a_line(config: Any) -> None:
    for overrides in ((), ["seed=1"]):
        with pytest.raises(ConfigError, match=r"^configuration: expected a file, a name, a mapping or a Config, found"):
            requested(config, overrides=overrides)
