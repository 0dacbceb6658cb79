from workers import Recipe
from workers.packed.timing import Probe, is_reproducible, measure

RECIPE = Recipe(lr=0.05, batch_size=8, epochs=2)


def test_convolutions_are_measured_in_both_layouts_and_in_lockstep(zoo):
    plan = measure(zoo(RECIPE, "convolution"), "cpu")
    assert "channels last" in plan.reason
    assert "lockstep by" in plan.reason


def test_what_cannot_run_in_lockstep_is_trained_alone(zoo):
    class Branching(zoo):
        def loss(self, outputs, targets):
            assert float(outputs.detach().sum()) < float("inf")
            return super().loss(outputs, targets)

    plan = measure(Branching(RECIPE, "relu"), "cpu")
    assert plan.method == "alone"
    assert "lockstep is not possible" in plan.reason


def test_reproducibility_is_seen(zoo):
    assert is_reproducible(Probe(zoo(RECIPE, "linear"), "cpu"), "stacked", 5)
    assert not is_reproducible(Probe(zoo(RECIPE, "layer_norm"), "cpu"), "stacked", 9)


def test_a_hopeless_way_is_not_timed_again(zoo):
    probe, calls = Probe(zoo(RECIPE, "linear"), "cpu"), []
    (rate,) = probe.rates([lambda runs: calls.append(probe.alone()(runs))], least=1e9)
    assert len(calls) == 1
    assert 0 < rate < 1e9
