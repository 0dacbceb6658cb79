"""Where everything of a sweep is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store.durable import PARTIAL
from workers.errors import StoreError

_PLAIN = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class SweepPaths:
    """Every path of one sweep folder. Names of designs, measures and attributions must be plain file names."""

    root: Path

    def __post_init__(self) -> None:
        # The sweep's own folder may be a link; below it none is followed (plain_files.py).
        object.__setattr__(self, "root", Path(self.root).resolve())

    @property
    def config(self) -> Path:
        """The resolved configuration (YAML)."""
        return self.root / "config.yaml"

    @property
    def lease(self) -> Path:
        """Locked by the process that writes, and says which one it is (JSON)."""
        return self.root / "lease"

    @property
    def calibration(self) -> Path:
        """What was measured before packs were sized (JSON)."""
        return self.root / "calibration.json"

    @property
    def forecast(self) -> Path:
        """What the sweep was expected to take (JSON)."""
        return self.root / "forecast.json"

    @property
    def stopping(self) -> Path:
        """How the designs' stopping criteria went (JSON)."""
        return self.root / "stopping.json"

    @property
    def runs(self) -> Path:
        """The Zarr group of all runs."""
        return self.root / "runs.zarr"

    @property
    def attributions(self) -> Path:
        """The Zarr group of all attributions."""
        return self.root / "attributions.zarr"

    @property
    def gradients(self) -> Path:
        """The Zarr group of what is kept of the training examples' gradients."""
        return self.root / "gradients.zarr"

    @property
    def queries(self) -> Path:
        """The Zarr group of attributions of queries that came later."""
        return self.root / "queries.zarr"

    @property
    def pieces(self) -> Path:
        """Folder of the finished pieces of attributions that are being computed."""
        return self.root / "pieces"

    def estimator_failure(self, name: str) -> Path:
        """The traceback of an estimator that failed (text)."""
        return self.root / "failures" / f"{check_name(name)}.txt"

    @property
    def ledger(self) -> Path:
        """Folder of the ledger."""
        return self.root / "ledger"

    @property
    def checkpoints(self) -> Path:
        """Folder of all checkpoints."""
        return self.root / "checkpoints"

    @property
    def scores(self) -> Path:
        """The scores (Parquet)."""
        return self.root / "scores.parquet"

    @property
    def provenance(self) -> Path:
        """What runs were trained under (JSON)."""
        return self.root / "provenance.json"

    @property
    def task(self) -> Path:
        """What the task tells of itself (JSON)."""
        return self.root / "task.json"

    @property
    def examples(self) -> Path:
        """What the task tells of its examples and queries, where it tells something (Parquet)."""
        return self.root / "examples.parquet"

    @property
    def report(self) -> Path:
        """The report (HTML)."""
        return self.root / "report.html"

    def plan_array(self, design: str, name: str) -> Path:
        """`masks`, `seeds`, `subsets`, `repeats` or `weights` of a design (Zarr array)."""
        return self.runs / check_name(design) / name

    def output_array(self, design: str, measure: str) -> Path:
        """Outputs of a design through one measure (Zarr array)."""
        return self.runs / check_name(design) / "outputs" / check_name(measure)

    def design_ledger(self, design: str) -> Path:
        """Folder of the ledger records of a design."""
        return self.ledger / check_name(design)

    def record(self, design: str, pack: int) -> Path:
        """Ledger record of a pack (JSON)."""
        return self.design_ledger(design) / f"{pack:06d}.json"

    def plan_record(self, design: str) -> Path:
        """Says that the plan of a design is completely written (JSON)."""
        return self.design_ledger(design) / "plan.json"

    def committed(self, design: str) -> Path:
        """Lists the packs that were ever committed (text)."""
        return self.design_ledger(design) / "committed"

    def run_checkpoints(self, design: str, row: int) -> Path:
        """Folder of the checkpoints of one run."""
        return self.checkpoints / check_name(design) / str(row)

    def checkpoint(self, design: str, row: int, epoch: int) -> Path:
        """One checkpoint (safetensors)."""
        return self.run_checkpoints(design, row) / f"{epoch}.safetensors"

    def recorded_sensitivities(self, design: str, row: int) -> Path:
        """The sensitivities that were recorded while one run was trained (safetensors)."""
        return self.root / "sensitivities" / f"{check_name(design)}.{row}.safetensors"

    def attribution(self, name: str) -> Path:
        """One attribution (Zarr group)."""
        return self.attributions / check_name(name)

    def estimator_gradients(self, name: str) -> Path:
        """What is kept of the gradients that one estimator looks at (Zarr group)."""
        return self.gradients / check_name(name)

    def network_gradients(self, name: str, number: int) -> Path:
        """Those at one network (Zarr group)."""
        return self.estimator_gradients(name) / str(number)

    def query_attribution(self, queries: str, name: str) -> Path:
        """One estimator's attribution of some queries that came later (Zarr group)."""
        return self.queries / check_name(queries) / check_name(name)

    def sensitivity(self, name: str, option: str) -> Path:
        """How the LDS of an estimator goes with one of its options (CSV); its figure is beside it (SVG)."""
        return self.root / "sensitivity" / f"{check_name(name)}.{check_name(option)}.csv"


def is_name(name: str) -> bool:
    """Say whether `name` can be the name of a file and of a Zarr node."""
    return bool(_PLAIN.fullmatch(name)) and not (name.startswith("__") or name == "zarr.json" or name.endswith(PARTIAL))


def check_name(name: str) -> str:
    """Return `name` if it can be the name of a file and of a Zarr node. Raises StoreError otherwise."""
    if not is_name(name):
        raise StoreError(
            f"{name!r} cannot name a folder: use letters, digits, '_', '-' and '.', a letter or digit first"
        )
    return name
