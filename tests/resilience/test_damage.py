"""Damaged files are found by `verify` and by the next run, named, and what they held is trained again."""

from __future__ import annotations

import pytest


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def delete(path):
    path.unlink()


DAMAGES = [
    ("fit", 2, "runs.zarr/fit/outputs/margin/c.2.0", truncate),
    ("fit", 4, "runs.zarr/fit/masks/c.4.0", flip),
    ("fit", 7, "runs.zarr/fit/outputs/correct/c.7.0", delete),
    ("fit", 9, "runs.zarr/fit/seeds/c.9", delete),
    ("heldout", 1, "runs.zarr/heldout/outputs/margin/c.1.0", flip),
    ("heldout", 2, "ledger/heldout/000002.json", truncate),
]
"""Design, pack, file, and what happens to it."""
RETRAINED = 4 * 4
"""Rows of the packs whose outputs or record are lost; the plan is written again without training."""


@pytest.mark.slow
def test_found_named_and_mended(counterfactory, ask, ask_json, damaged_copy, undisturbed, assert_equal_stores):
    for _, _, name, damage in DAMAGES:
        damage(damaged_copy.folder / name)
    checkpoint = next(damaged_copy.folder.glob("checkpoints/reference/*/*"))
    flip(checkpoint)

    code, checked = ask_json("verify", damaged_copy.folder)
    assert code == 1
    found = {(one["design"], one["pack"], one["path"]) for one in checked["damages"]}
    expected = {(design, pack, str(damaged_copy.folder / name)) for design, pack, name, _ in DAMAGES}
    assert found == expected | {("reference", 0, str(checkpoint))}
    code, told = ask("verify", damaged_copy.folder)
    assert code == 1
    assert all(path in told.replace("\n", "") for _, _, path in found)

    result = counterfactory("run", damaged_copy.config, "--out", damaged_copy.folder)
    assert result.returncode == 0, result.stderr
    assert all(f"{design} pack {pack} " in result.stderr and path in result.stderr for design, pack, path in found)
    assert f"trained {RETRAINED + 1} runs" in result.stderr
    assert_equal_stores(damaged_copy, undisturbed)
    assert ask("verify", damaged_copy.folder)[0] == 0


@pytest.mark.slow
def test_untouched_passes(undisturbed, ask_json):
    nothing = {"damages": [], "kept": [], "outdated": [], "reruns": [], "machine_changes": {}}
    assert ask_json("verify", undisturbed.folder) == (0, nothing)
