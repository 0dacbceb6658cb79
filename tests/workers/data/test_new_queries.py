"""Queries from files: in the form of a task's own, whatever that is, and one line for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from workers.data.examples import Arrays, Batch
from workers.data.new_queries import checked, read_batch
from workers.errors import DataError
from workers.tasks.language_model import LanguageModel
from workers.tasks.tabular import tabular
from workers.tasks.text import Text

OWN = Arrays(Batch({"tokens": torch.zeros(3, 4, dtype=torch.long), "scale": torch.ones(3)}, torch.zeros(3)))


def test_an_npz_has_the_leaves_of_a_batch_by_name(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "inputs.tokens": np.arange(8).reshape(2, 4),
        "inputs.scale": np.ones(2, np.float32),
        "targets": np.array([1.0, 2.0]),
    }
    np.savez(tmp_path / "new.npz", **arrays)
    found = checked(read_batch(tmp_path / "new.npz", OWN), OWN, tmp_path / "new.npz")
    assert isinstance(found, Batch)
    assert found.inputs["tokens"].tolist() == arrays["inputs.tokens"].tolist()
    assert found.targets.tolist() == [1.0, 2.0]
    alone = Arrays(torch.zeros(3, 2))
    np.savez(tmp_path / "alone.npz", batch=np.ones((1, 2)))
    assert read_batch(tmp_path / "alone.npz", alone).tolist() == [[1.0, 1.0]]
    del arrays["inputs.scale"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(
        DataError, match=r"expected `inputs\.tokens`, `inputs\.scale`, `targets`, found `inputs\.tokens`"
    ):
        read_batch(tmp_path / "less.npz", OWN)
    with pytest.raises(DataError, match=r"more\.tsv: the task reads new queries from an \.npz .* read_queries\(path\)"):
        read_batch(tmp_path / "more.tsv", OWN)


GOOD = Batch({"tokens": torch.ones(2, 4, dtype=torch.long), "scale": torch.ones(2)}, torch.ones(2))


@pytest.mark.parametrize(
    ("batch", "line"),
    [
        (GOOD._replace(targets=torch.ones(3)), "`queries.targets` has 3 examples"),
        (GOOD._replace(targets=torch.ones(2, 1)), "queries.targets is floating with 2 dimensions, expected floating with 1"),
        (GOOD._replace(targets=torch.ones(2, dtype=torch.long)), "queries.targets is integer with 1 dimensions"),
        (GOOD._replace(targets=torch.tensor([1.0, np.inf])), "queries.targets has numbers that are not finite"),
        (GOOD._replace(inputs=torch.ones(2, 4)), "a batch of queries has `queries.inputs`, `queries.targets`, the task's has"),
        (Batch({"tokens": torch.ones(0, 4, dtype=torch.long), "scale": torch.ones(0)}, torch.ones(0)), "holds no query"),
        (None, "`queries` holds no tensor"),
    ],
)  # fmt: skip
def test_another_form_is_one_line(batch: Any, line: str) -> None:
    with pytest.raises(DataError, match=line):
        checked(batch, OWN, Path("new.npz"))


ROWS = pd.DataFrame(
    {
        "size": [1.0, 2.5, 4.0, 3.0, 0.5, 2.0] * 5,
        "colour": ["red", "blue", "green"] * 10,
        "sunny": [True, False] * 15,
        "worth": np.linspace(0, 3, 30),
        "kind": ["good", "bad", "good"] * 10,
    }
)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_rows_of_a_table_are_as_the_tasks_own(tmp_path: Path, kind: str, ending: str) -> None:
    target, other = ("worth", "kind") if kind == "regression" else ("kind", "worth")
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    task = tabular(tmp_path / "rows.csv", target=target, kind=kind, drop=[other], t=8)
    own = ROWS.iloc[task._setting.queries[:5]].drop(columns=other)[::-1]  # the order of rows is the file's
    columns = own[[target, "sunny", "colour", "size"]].assign(beside=1)  # that of columns, and others, do not matter
    file = tmp_path / f"new.{ending}"
    if ending == "parquet":
        columns.to_parquet(file)
    else:
        columns.to_csv(file, index=False, sep="\t" if ending == "tsv" else ",")
    found = task.read_queries(file)
    torch.testing.assert_close(found.inputs, task.query_inputs[:5].flip(0))
    torch.testing.assert_close(found.targets, task.query_targets[:5].flip(0))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: rows.drop(columns="size"), "has no column 'size'"),
        (lambda rows: rows.assign(colour="rod"), "column 'colour' has 'rod': did you mean red"),
        (lambda rows: rows.assign(size="large"), "column 'size' must be numbers, found 'large'"),
        (lambda rows: rows.assign(size=np.nan), "column 'size' has 2 missing or infinite values"),
        (lambda rows: rows.assign(kind="god"), "the class 'god' is not known: did you mean good"),
        (lambda rows: rows.assign(kind=1), "column 'kind' must be text, found 1"),
    ],
)  # fmt: skip
def test_other_tables_are_one_line(tmp_path: Path, change: Any, line: str) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    task = tabular(tmp_path / "rows.csv", target="kind", kind="classification", t=8)
    change(ROWS.head(2)).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match=line):
        task.read_queries(tmp_path / "new.csv")


def test_texts_are_tokens_as_the_tasks_own(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    words = ["a fine film", "a dull film", "fine and bright", "dull and grey", "so fine", "so dull"] * 4
    table = pd.DataFrame({"said": words, "verdict": ["good", "bad"] * 12})
    table.to_csv(tmp_path / "texts.tsv", index=False, sep="\t")
    task = Text(tmp_path / "texts.tsv", "said", n=16, t=8, length=6, vocabulary=300, width=8, heads=2)
    chosen = table.iloc[[words.index(text) for text in task._texts["task"]]]
    chosen.to_csv(tmp_path / "new.csv", index=False)
    found = task.read_queries(tmp_path / "new.csv")
    for name in ("tokens", "mask"):
        assert torch.equal(found.inputs[name], task.query_inputs[name])
    assert torch.equal(found.targets, task.query_targets)
    chosen.assign(verdict="god").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match="the class 'god' is not known"):
        task.read_queries(tmp_path / "bad.csv")
    chosen.rename(columns={"said": "says"}).to_csv(tmp_path / "bad2.csv", index=False)
    with pytest.raises(DataError, match="has no column 'said': did you mean says"):
        task.read_queries(tmp_path / "bad2.csv")


@pytest.mark.parametrize("tokens", ["characters", "trained"])
def test_documents_are_tokens_as_the_tasks_own(tmp_path: Path, tokens: Any) -> None:
    if tokens == "trained":
        pytest.importorskip("tokenizers")
    (tmp_path / "all.txt").write_text("\n\n".join(f"line {number} of many" for number in range(12)))
    task = LanguageModel(
        tmp_path / "all.txt", n=8, t=4, tokens=tokens, vocabulary=280, length=9, width=8, heads=2, layers=1
    )
    (tmp_path / "new.txt").write_text("\n\n".join(task._texts["task"]))
    found = task.read_queries(tmp_path / "new.txt")
    assert torch.equal(found.inputs, task.query_inputs)
    assert torch.equal(found.targets, task.query_targets)
    (tmp_path / "none.txt").write_text("\n\n \n\n")
    with pytest.raises(DataError, match="holds no document"):
        task.read_queries(tmp_path / "none.txt")
    if tokens == "characters":
        (tmp_path / "strange.txt").write_text("line §")
        with pytest.raises(DataError, match="the character '§' is not known"):
            task.read_queries(tmp_path / "strange.txt")
