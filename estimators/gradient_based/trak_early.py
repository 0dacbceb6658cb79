"""TRAK on models that are not trained to the end."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from estimators.gradient_based.trak import Trak


class TrakEarly(Trak):
    """As `trak`, at the checkpoints before the last of each reference model, each a model of its own.

    Park et al. 2023, section 5 (cheaper proxies): members of an ensemble need not be trained to the end, nor be of trainings
    of their own. Their cost is that of their epochs, which is not taken off the training time of the reference models here.
    `checkpoints: all` has the last ones, too. Refused where a reference model kept none between epoch 0 and the last.

    >>> from estimators.gradient_based.trak_early import TrakEarly
    >>> from estimators.testing import model_evidence
    >>> evidence = model_evidence()  # two models with checkpoints after epochs 30 and 60
    >>> made = TrakEarly().attribute(evidence)
    >>> made.values.shape, made.models, made.details["checkpoints"]
    ((24, 4), 2, 2)
    """

    name: ClassVar[str] = "trak_early"

    checkpoints: Literal["last", "early", "all"] = Field(
        "early",
        description="those after epoch 0 before the last of each reference model, or it, or both, each as a model of its own",
    )
