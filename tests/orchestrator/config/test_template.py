from importlib import resources
from pathlib import Path

from orchestrator.config.loading import load, read
from orchestrator.config.template import NAME, template
from workers.loading import BUILT_IN

FILE = Path(str(resources.files("orchestrator.config"))) / "template.yaml"


def test_the_template_is_a_configuration_like_any_other() -> None:
    config = load(str(FILE))
    assert {design.purpose for design in config.designs.values()} == {"fit", "score"}
    assert len(config.estimators) > 5


def test_what_is_written_differs_only_in_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(template(str(path)))
    assert f"counterfactory run {path}\n" in path.read_text()
    assert path.read_text().replace(str(path), NAME) == FILE.read_text()
    assert read(path) == read(FILE)


def test_it_names_every_task_that_trains() -> None:
    for task in BUILT_IN:
        assert task == "imported" or task in FILE.read_text()
