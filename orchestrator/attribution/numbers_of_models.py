"""Estimators that differ in how many reference models they look at, answered in one pass over the models."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from estimators.contract import Attribution
from estimators.evidence import Evidence
from estimators.reference_estimator import ReferenceEstimator
from orchestrator.config.estimator_section import EstimatorSection


@dataclass(frozen=True)
class Answer:
    """An attribution, and what it cost."""

    made: Attribution
    seconds: float
    """Until it was there, from the beginning of the pass that gave it."""


class Answers:
    """The answers of some sections, each computed when it is first asked for."""

    def __init__(self, sections: Mapping[str, EstimatorSection]):
        """`sections` by label: those that will be asked for, each once."""
        self._asked = dict(sections)
        self._ready: dict[str, Answer] = {}

    def answer(self, label: str, evidence: Evidence) -> Answer:
        """Return the answer of one, and keep those of others that its pass over the models goes by.

        Raises what its estimator raises; an error that comes after its own answer is left to those that it is about.
        """
        section = self._asked.pop(label)
        if label not in self._ready:
            try:
                for other, answer in self._pass(label, section, evidence):
                    self._ready[other] = answer
            except Exception:
                if label not in self._ready:
                    raise
        return self._ready.pop(label)

    def _pass(self, label: str, section: EstimatorSection, evidence: Evidence) -> Iterator[tuple[str, Answer]]:
        started = time.perf_counter()
        options = section.options
        counts = self._counts(label, section, evidence)
        if not isinstance(options, ReferenceEstimator) or len(counts) == 1:
            yield label, Answer(options.attribute(evidence), time.perf_counter() - started)
            return
        for count, made in options.attributions(evidence, set(counts.values())):
            answer = Answer(made, time.perf_counter() - started)
            yield from ((other, answer) for other, wanted in counts.items() if wanted == count)

    def _counts(self, label: str, section: EstimatorSection, evidence: Evidence) -> dict[str, int]:
        """Return how many models this section looks at, and those that differ in that alone, by label.

        Left out are those that want more than there are; one that does so itself is alone.
        """
        there = sum(bool(reference.checkpoints) for reference in evidence.references)
        found = {label: wanted_of(section, there)}
        for other, one in self._asked.items():
            alike = other not in self._ready and one.estimator == section.estimator  # others are not even loaded
            if alike and but_for_models(one) == but_for_models(section):
                found[other] = wanted_of(one, there)
        fit = {other: count for other, count in found.items() if 1 <= count <= there}
        return fit if label in fit else {label: 0}


def wanted_of(section: EstimatorSection, there: int) -> int:
    """Return how many of the reference models a section looks at; 0 where it does not go through them in the one loop."""
    options = section.options
    if not isinstance(options, ReferenceEstimator) or type(options).attribute is not ReferenceEstimator.attribute:
        return 0
    return options.models or there


def but_for_models(section: EstimatorSection) -> str:
    """Return what tells a section from others, its number of models left out."""
    options = section.options.model_dump(mode="json")
    options.pop("models", None)
    return json.dumps([section.estimator, section.measure, options], sort_keys=True)
