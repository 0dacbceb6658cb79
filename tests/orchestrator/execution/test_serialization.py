import pickle
from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.execution.serialization import OutcomeParcel, RunParcel
from workers.runs import Checkpoint, Failure, Outcome, Run

subsets = st.sets(st.integers(0, 99), min_size=1, max_size=9).map(lambda chosen: np.array(sorted(chosen)))
plain_runs = st.builds(
    Run,
    st.integers(0, 2**40),
    subsets,
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (1, 3)]),
    st.sampled_from(["own", "shared"]),
    st.sampled_from(["batch", "weight"]),
)
weighted_runs = plain_runs.map(lambda run: replace(run, weights=run.subset.astype(np.float32) / 7))
whole_runs = plain_runs.map(lambda run: replace(run, optimizer_state=True))
run_lists = st.lists(plain_runs | weighted_runs | whole_runs, min_size=1)


@given(run_lists)
def test_runs_arrive_as_they_were_sent(sent: list[Run]) -> None:
    arrived = pickle.loads(pickle.dumps(RunParcel.of(sent))).unwrap()
    for was, now in zip(sent, arrived, strict=True):
        assert (was.row, was.seed, was.checkpoint_epochs) == (now.row, now.seed, now.checkpoint_epochs)
        assert (was.order, was.normalize, was.optimizer_state) == (now.order, now.normalize, now.optimizer_state)
        assert was.subset.tolist() == now.subset.tolist()
        assert (was.weights is None) == (now.weights is None)
        assert was.weights is None or was.weights.tobytes() == now.weights.tobytes()
        assert now.subset.dtype == np.int64
        assert now.subset.flags.writeable


@given(st.lists(st.tuples(st.integers(0, 999), st.floats(0, 1e6), st.sampled_from(["good", "kept", "failed"]))))
def test_outcomes_arrive_as_they_were_sent(rows: list[tuple[int, float, str]]) -> None:
    sent = [outcome(*row) for row in rows]
    arrived = pickle.loads(pickle.dumps(OutcomeParcel.of(sent))).unwrap()
    for was, now in zip(sent, arrived, strict=True):
        assert (was.row, was.seconds, was.failure) == (now.row, now.seconds, now.failure)
        assert {name: values.tolist() for name, values in was.outputs.items()} == {
            name: values.tolist() for name, values in now.outputs.items()
        }
        assert [kept.epoch for kept in was.checkpoints] == [kept.epoch for kept in now.checkpoints]


def outcome(row: int, seconds: float, kind: str) -> Outcome:
    if kind == "failed":
        return Outcome(row, failure=Failure("ValueError", "no", f"Traceback of {row}"), seconds=seconds)
    values = np.random.default_rng(row).random((2, 3)).astype(np.float32)
    checkpoints = (Checkpoint(1, 5, 0.1, {"w": torch.zeros(2)}),) if kind == "kept" else ()
    return Outcome(row, {"margin": values[0], "loss": values[1]}, checkpoints, seconds=seconds)
