"""The example of docs/gradients.md that attributes new queries, run as it is written."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.stages.plan import prepare
from orchestrator.stages.retrain import retrain
from orchestrator.sweeps.request import requested

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gradients.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## New queries, without the training set")[2].partition("\n## ")[0]


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline_pool: Any, command: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", SECTION, re.S):
        Path(name).write_text(content)
    sweep = requested("kept.yaml", Path("runs/kept"), {"pack": 4})
    with prepare(sweep) as store:  # trained here, so that `run` starts no workers for three models
        retrain(sweep, store, pool=inline_pool(sweep))
    (commands,) = re.findall(r"```\n(counterfactory.*?)```", SECTION, re.S)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        if program == "python":
            runpy.run_path(arguments[0])
        else:
            ended = command(*arguments)
            assert ended.code == 0, ended.err
    strongest = pd.read_csv("strongest.csv")
    assert strongest.groupby(["query", "effect"]).size().tolist() == [3] * 10
    (block,) = re.findall(r"```python\n(import orchestrator\n.*?)```", SECTION, re.S)
    exec(compile(block, "docs/gradients.md", "exec"), {})
