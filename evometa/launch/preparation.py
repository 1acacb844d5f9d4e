"""Make a study ready to be searched: its data, its rungs, a first look at its space."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evometa.errors import Interrupted, StudyError
from evometa.evaluate import (
    Admission,
    BeyondLimits,
    Rejected,
    admit,
    calibrate,
    check_episodes,
    parse_plan,
)
from evometa.evaluate.evaluator import choose_device
from evometa.execute import interruptible
from evometa.files import local
from evometa.launch.settings import Data, Settings, Workers
from evometa.records import Genome, derive_seed
from evometa.study import Rung, Study, halving
from evometa.study_file import StudyFile, watched

PREFLIGHT_SAMPLES = 8
LOOK_AHEAD_EPISODES = 20


def prepare(file: StudyFile, data: Data) -> StudyFile:
    """Return the study with its task's data loaded.

    Raises:
        TaskError: if the data is missing or broken.
    """
    folder = local(data.folder) if data.folder else None
    study = file.study
    how = {"download": data.download, "skip_broken": data.skip_broken}
    with watched():  # a task of the user's own may read files of the study
        rungs = [
            replace(rung, task=rung.task.load(folder, **how)) if rung.task else rung
            for rung in study.rungs
        ]
        task = study.task.load(folder, **how)
    return replace(file, study=replace(study, task=task, rungs=rungs))


def adjusted(file: StudyFile, settings: Settings, training: Mapping[str, Any]) -> StudyFile:
    """Return the file with its study changed as the settings ask for.

    Args:
        file: the study as declared.
        settings: rungs, seeds and constraints.
        training: fields of `Training` to change.

    Raises:
        StudyError: if the study does not allow it.
    """
    study = file.study.with_training(**training) if training else file.study
    rungs = tuple(study.rungs)
    if settings.rungs:
        rungs = halving(settings.rungs)
    if settings.look_ahead and not (rungs and rungs[0].iterations == 0):
        rungs = (Rung(iterations=0, validation=LOOK_AHEAD_EPISODES), *rungs)
    study = replace(
        study,
        rungs=rungs,
        seeds=settings.seeds or study.seeds,
        constraints=(*study.constraints, *settings.constraints),
    )
    return replace(file, study=study)


@watched()
def preflight(
    file: StudyFile, seed: int, device_name: str = "auto", samples: int = PREFLIGHT_SAMPLES
) -> list[Admission]:
    """Pass the baselines and a few samples through the gate, before any worker is started.

    Files that the study opens meanwhile are kept with its run.

    Args:
        file: the study, its task loaded.
        seed: seeds the samples and the initial parameters.
        device_name: where candidates are trained.
        samples: how many genomes are drawn.

    Returns:
        Those that passed, the baselines first.

    Raises:
        StudyError: if a baseline, or every sample, is rejected: the file is at fault then.
        TaskError: if an episode cannot be drawn, or not be learned from.
    """
    study = file.study
    for task in {id(level.task): level.task for level in study.levels}.values():
        check_episodes(task)
    admitted = []
    for name, genome in study.baselines.items():
        try:
            admitted.append(_admitted(study, genome, seed, device_name))
        except BeyondLimits:  # it is recorded as INVALID
            continue
        except Rejected as reason:
            raise StudyError(f"{file.path}: baseline {name!r} cannot work: {reason}") from reason
    rng = np.random.default_rng(derive_seed(seed, "preflight"))
    reasons = []
    for _ in range(samples):
        genome = study.space.sample(rng)
        try:
            admitted.append(_admitted(study, genome, seed, device_name))
        except Rejected as reason:
            reasons.append(f"{reason} (genome {json.dumps(genome)})")
    if samples and len(reasons) == samples:
        raise StudyError(
            f"{file.path}: none of {samples} genomes drawn from the space can work; the first: "
            f"{reasons[0]}"
        )
    return admitted


def _admitted(study: Study, genome: Genome, seed: int, device: str) -> Admission:
    """Pass a candidate through the gate; one that leaves, or stops itself, is rejected."""
    with interruptible():
        try:
            return admit(study, genome, seed, choose_device(device))
        except Interrupted:
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            raise Rejected(f"its code raised {type(error).__name__}: {error}") from error


def choose_plans(
    file: StudyFile, admitted: Sequence[Admission], wanted: str, device_name: str, workers: Workers
) -> dict[str, str]:
    """Return how the inner loops of each kind of network are to be executed.

    Args:
        file: the study, its task loaded.
        admitted: candidates to try plans on.
        wanted: a plan for all, or `"auto"` for the fastest by a short calibration. On a remote
            cluster, whose devices are not at hand here, `"auto"` is the default of each device.
        device_name: where candidates are trained.
        workers: where that is.
    """
    if wanted != "auto":
        return dict.fromkeys(("dense", "convolution"), str(parse_plan(wanted)))
    if workers.address is not None:
        return {}
    plans = calibrate(file.study, admitted, choose_device(device_name))
    return {kind: str(plan) for kind, plan in plans.items()}
