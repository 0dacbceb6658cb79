import pytest

from workers import machine


@pytest.fixture
def group(tmp_path, monkeypatch):
    """group(name=text, ...) is the control group of this process."""
    monkeypatch.setattr(machine, "_GROUP", tmp_path)

    def make(**limits):
        for name, text in limits.items():
            (tmp_path / f"memory.{name}").write_text(f"{text}\n")

    return make


def test_memory_is_that_of_the_control_group_where_that_is_less(group):
    physical = machine.total_bytes()
    assert physical > 1 << 20
    group(max="max")
    assert machine.total_bytes() == physical
    group(max=1 << 20)
    assert machine.total_bytes() == 1 << 20
    group(max=physical + 1)
    assert machine.total_bytes() == physical
