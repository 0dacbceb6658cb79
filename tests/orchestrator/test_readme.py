"""The README's picture and its words are held to the numbers of the run they stand for (docs/leaderboards/digits.json)."""

import html
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.loading import load
from orchestrator.config.shipped import shipped

ROOT = Path(__file__).resolve().parents[2]
REMEDY = "draw it again: python benchmarks/leaderboard.py runs/digits"
KEPT = sorted((ROOT / "docs" / "leaderboards").glob("*.json"))
WORDS = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "leaderboards" / "digits.json").read_text(encoding="utf-8"))
    return found


def lines_of(picture: str) -> list[str]:
    """Return the lines of text of a picture, the pieces of each in their order."""
    found: dict[float, list[str]] = defaultdict(list)
    for y, text in re.findall(r'<text [^>]*\by="([\d.]+)"[^>]*>([^<]*)</text>', picture):
        found[float(y)].append(html.unescape(text))
    return [" ".join(" ".join(found[y]).replace("\xa0", " ").split()) for y in sorted(found)]


def missing(picture: str, numbers: dict[str, Any]) -> list[str]:
    """Return the scores whose value and interval stand in no line of the picture that begins with the estimator's name."""
    lines = lines_of(picture)

    def shown(score: dict[str, Any]) -> bool:
        figures = [f"{score[key]:.3f}" for key in ("value", "low", "high")]
        mine = [re.split(r"[\s│]+", line) for line in lines if line.lstrip("│ ").startswith(f"{score['estimator']} ")]
        return any(all(figure in line for figure in figures) for line in mine)

    return [f"{one['metric']} of {one['estimator']}: {one['value']:.3f}" for one in numbers["scores"] if not shown(one)]


def test_the_picture_shows_the_numbers_that_are_kept(numbers: dict[str, Any]) -> None:
    assert len(numbers["scores"]) > 5
    picture = (ROOT / "docs" / "leaderboard.svg").read_text(encoding="utf-8")
    assert missing(picture, numbers) == [], REMEDY
    assert f"counterfactory run {numbers['sweep']}" in lines_of(picture)


def test_a_picture_of_other_numbers_is_seen(numbers: dict[str, Any]) -> None:
    picture = (ROOT / "docs" / "leaderboard.svg").read_text(encoding="utf-8")
    for place, score in enumerate(numbers["scores"]):
        for key in ("value", "low", "high"):
            other = [dict(one) for one in numbers["scores"]]
            other[place][key] = score[key] + 3
            assert len(missing(picture, {"scores": other})) == 1


def test_the_readme_says_what_the_run_was(numbers: dict[str, Any]) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    judged = {one["estimator"] for one in numbers["scores"] if one["metric"] == "lds"}
    assert "](docs/leaderboard.svg)" in text
    assert f"trains more than {WORDS[numbers['runs'] // 1000]} thousand networks" in text, REMEDY
    assert f"on halves of {numbers['n']:,} real digits" in text, REMEDY
    assert f"computes {WORDS[len(judged) - 1]} other attributions" in text, REMEDY


def draw(docs: Path, *sweeps: Path) -> None:
    command = [sys.executable, "benchmarks/leaderboard.py", *map(str, sweeps), "--docs", str(docs)]
    subprocess.run(command, cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)}, capture_output=True)


def test_what_is_drawn_is_drawn_from_the_numbers_alone(numbers: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "leaderboards").mkdir()
    for kept in KEPT:
        shutil.copy(kept, tmp_path / "leaderboards")
    draw(tmp_path)
    assert missing((tmp_path / "leaderboard.svg").read_text(encoding="utf-8"), numbers) == []
    for kept in KEPT:
        page = kept.with_suffix(".md")
        assert (tmp_path / "leaderboards" / page.name).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.stem)
def test_every_leaderboard_is_of_a_configuration_that_ships_and_judges_what_that_names(kept: Path) -> None:
    judged = {
        one["estimator"] for one in json.loads(kept.read_text(encoding="utf-8"))["scores"] if one["metric"] == "lds"
    }
    assert judged == set(load(str(shipped()[kept.stem])).estimators)
    assert f"{kept.stem}\n" in (ROOT / "docs" / "leaderboards" / "index.md").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_a_sweep(finished_sweep: Path, tmp_path: Path) -> None:
    draw(tmp_path, finished_sweep)
    kept = json.loads((tmp_path / "leaderboards" / "tiny.json").read_text(encoding="utf-8"))
    assert (kept["sweep"], kept["n"], kept["t"], kept["runs"]) == ("tiny", 60, 8, 42)
    page = (tmp_path / "leaderboards" / "tiny.md").read_text(encoding="utf-8")
    for score in kept["scores"]:
        low, high = (f"{score[key]:.3f}" for key in ("low", "high"))
        assert f"| {score['estimator']} | {score['value']:.3f} | {low} to {high} |" in page
