"""The candidates of a pack, from the gate to the training."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from evometa.evaluate.checkpoint import Start
from evometa.evaluate.gate import Admission
from evometa.evaluate.plan import Plan
from evometa.evaluate.probe import Rejected
from evometa.evaluate.randomness import begin
from evometa.learner import Families, Learner, Meta, family_of
from evometa.records import Evaluation, Genome, Status


class Late(Exception):
    """The time limit has been reached."""


@dataclass(frozen=True)
class Member:
    """A candidate that passed the gate, and what is known of its evaluation so far.

    Attributes:
        blank: its evaluation, without results.
        admissions: what the gate said at each stage.
        stages: the last rung of each.
        start: where its training begins.
    """

    blank: Evaluation
    admissions: list[Admission]
    stages: list[int]
    start: Start

    @property
    def rung(self) -> int:
        """Where it is evaluated."""
        return self.blank.candidate.rung

    @property
    def admission(self) -> Admission:
        """What the gate said at its rung."""
        return self.admissions[-1]

    @property
    def company(self) -> object:
        """What must be equal for candidates to be trained together."""
        admission = self.admission
        # what draws random numbers while training must not share them with neighbours
        alone = self.blank.candidate.key if admission.random else None
        # one compiled program for all is worth more than company with other updates
        kin = admission.signature if admission.plan.compile else admission.kin
        return kin, admission.plan, alone, self.rung, self.start.rung, self.start.iteration


def together(
    members: Sequence[Member], stage: int, families: Families
) -> tuple[list[Learner], list[Meta], Plan]:
    """Return learners of equal structure, what they begin with, and the plan that suits them."""
    admissions = [member.admissions[stage] for member in members]
    learners = [admission.learner for admission in admissions]
    plan = admissions[0].plan
    if len({admission.signature for admission in admissions}) == 1:
        return learners, [admission.meta for admission in admissions], plan
    genome = members[0].blank.candidate.genome
    mixing = family_of(genome["rule"], families).family.mixing
    assert mixing is not None  # else their kin were their structure
    mixed = list(mixing.together(learners))
    seeds = [member.blank.candidate.seed for member in members]
    metas = [begin(own, seed) for own, seed in zip(mixed, seeds, strict=True)]
    return mixed, metas, replace(plan, compile=False, graph=False)


def capped(genome: Genome, steps: int | None, families: Families) -> Genome:
    """Return the genome with at most so many inner steps."""
    if steps is None or not isinstance(genome, dict) or "rule" not in genome:
        return genome
    try:
        family, genes = family_of(genome["rule"], families)
    except ValueError:  # the gate says what is wrong
        return genome
    return {**genome, "rule": {family.name: family.capped(genes, steps)}}


def failed(blank: Evaluation, error: Exception) -> Evaluation:
    """Name what went wrong."""
    if isinstance(error, Late):
        return replace(blank, status=Status.TIMEOUT, error=str(error))
    if isinstance(error, Rejected):
        return replace(blank, status=Status.INVALID, error=str(error))
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return replace(blank, status=Status.OOM, error=str(error))
    return replace(blank, status=Status.ERROR, error="".join(traceback.format_exception(error)))
