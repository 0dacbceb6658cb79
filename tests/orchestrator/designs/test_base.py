"""What every design says of itself, whatever its kind."""

from orchestrator.designs.full import Full


def test_what_decides_its_runs_is_plain_data() -> None:
    made = Full(kind="full", checkpoints=(1, 5), order="shared").deciding()
    assert made["checkpoints"] == [1, 5], "as it is read from a file again"
    assert made["order"] == "shared"
    assert "normalize" not in made, "that is what holds where nothing is said"
