"""The page of jobs runs as it is written: files, commands and Python, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jobs.md"


@pytest.mark.slow
def test_every_job_is_done_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_started: None, command: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed: dict[str, str] = {}
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M):
        if language == "yaml":
            Path(text.removeprefix("# ").partition("\n")[0]).write_text(text)
        elif language == "python":
            exec(compile(text, PAGE.name, "exec"), names)
        else:
            for line in text.splitlines():
                ended = command(*line.split()[1:])
                assert ended.code == 0, (line, ended.err)
                printed[line.removeprefix("counterfactory ")] = ended.out
    assert "datamodel" in printed["run wine.yaml"]
    assert "mine" in printed["score runs/wine --attributions mine.npy"]
    suspects = names["orchestrator"].open_sweep("runs/labels").suspects(12, estimator="memorization")
    assert suspects["label"].str.contains("flipped").sum() >= 8, "of the twelve that were changed"
    assert "orders stopped at" in printed["status runs/worth"]
    assert names["worth"].shape == (40,)
    assert float(names["worth"].sum()) < 0
    assert "What each class does to each class" in Path("runs/groups/report.html").read_text()
    assert Path("wine.npz").exists()
