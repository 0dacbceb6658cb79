"""Which design plays which part in a sweep: the one that is scored on, the one whose fresh seeds check it."""

from __future__ import annotations

from orchestrator.config.schema import Config
from orchestrator.sweeps.sweep import Sweep
from workers.errors import ConfigError, near


def refuse_imported(sweep: Sweep) -> None:
    """Raise ConfigError for a sweep whose runs were imported, where they would have to be trained."""
    imported = [name for name, design in sweep.config.designs.items() if not design.drawable]
    if imported or sweep.config.task.name == "imported":
        which = f"designs.{imported[0]}" if imported else "task.name"
        raise ConfigError(
            f"{sweep.paths.root}: {which}: imported runs cannot be trained; attribute, score, report, export and verify "
            "work on them"
        )


def scoring_design(config: Config, metric: str) -> str | None:
    """Return the design that a metric ("lds", "spread" or "loo") is computed on; None when the metric is off or has no runs."""
    scores = config.scores
    section = {"lds": scores.lds, "spread": scores.spread, "loo": scores.loo}[metric]
    if section is None:
        return None
    if metric != "loo":
        able = [name for name, design in config.designs.items() if design.purpose == "score" and design.follows is None]
    else:
        able = [name for name, design in config.designs.items() if "leave_one_out" in design.serves]
    return _choose(section.design, able, f"scores.{metric}.design")


def fresh_design(config: Config) -> str | None:
    """Return the design whose fresh seeds check the noise ceiling, or None."""
    lds = config.scores.lds
    scored = scoring_design(config, "lds")
    if lds is None or scored is None:
        return None
    able = [name for name, design in config.designs.items() if design.follows == scored]
    return _choose(lds.fresh, able, "scores.lds.fresh")


def tuning_design(config: Config, label: str) -> str:
    """Return the design whose runs choose the options of a tuned estimator: a fitting one, so never one that is judged by.

    Raises ConfigError where there is none: a surrogate that needs no retraining is not offered.
    """
    section = config.estimators[label]
    able = [
        name
        for name, design in config.designs.items()
        if design.purpose == "fit" and "subsets" in design.serves and not design.weighs
    ]
    if not able:
        raise ConfigError(
            f"estimators.{label}.tune: values are chosen by the LDS on fitting runs of random subsets, and there is no such "
            "design; add one of purpose fit, such as {kind: subsets, subsets: 50}"
        )
    found = _choose(section.tune_on, able, f"estimators.{label}.tune_on")
    assert found is not None, "one of those that are able"
    return found


def _choose(named: str | None, able: list[str], key: str) -> str | None:
    if named is not None:
        if named not in able:
            raise ConfigError(f"{key}: {named!r} is not a design that can serve here: {near(named, able)}")
        return named
    if len(able) > 1:
        raise ConfigError(f"{key}: several designs can serve ({', '.join(able)}); name one")
    return able[0] if able else None
