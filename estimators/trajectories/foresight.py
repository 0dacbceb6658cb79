"""What a walk will take, from a few steps of it."""

from __future__ import annotations

import time

from estimators.trajectories.pull_back import PullBack
from estimators.trajectories.step_graph import StepGraph
from estimators.trajectories.walk import Asked, Walk

_STEPS = 3
_FORWARD = 2
"""Times that a step is taken forward, at most."""


def seconds_of(walk: Walk, asked: Asked) -> float:
    """Return about how long `walk.effects(asked)` takes: the steps at the beginning, forward and back, times their number."""
    replay, twin = walk.replay, walk.twin
    worth = walk.at_the_end(asked)
    forward, back = [], []
    for _ in range(min(_STEPS, replay.steps)):
        started = time.perf_counter()
        moment = replay.course.moment()
        feeds = replay.course.advance()
        between = time.perf_counter()
        graph = StepGraph(twin, moment.state, feeds, walk.curvature)
        pull = PullBack(walk.recipe, walk.undecayed, moment, graph.gradients, 0.0)
        walk.take_back(graph, pull, worth, asked.count)
        forward.append(between - started)
        back.append(time.perf_counter() - between)
    return replay.steps * (_FORWARD * min(forward) + min(back))
