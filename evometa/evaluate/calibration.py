"""Which plan is fastest here? A short calibration on the device, once a search.

Its result is kept with the run and used by all workers, so that all candidates of a kind, and a
resumed search, compute in the same way: plans differ in rounding, and a plan chosen anew by every
worker's clock would make a table that cannot be made again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from evometa.evaluate.gate import Admission
from evometa.evaluate.memory import peak_bytes
from evometa.evaluate.plan import LOOP, VMAP, Plan, default_plan
from evometa.evaluate.settings import numerics
from evometa.evaluate.training import Trainer
from evometa.study import Study, Training

log = logging.getLogger(__name__)

REPEATS = 5
WORTHWHILE = 1.25  # a plan must be this much faster than the default one, clear of any noise
COMPILE_FROM = 300.0  # seconds of training from which compiling is tried
MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.8}


def calibrate(
    study: Study, admissions: Sequence[Admission], device: torch.device
) -> dict[str, Plan]:
    """Time the plans for the first candidate of each kind of network.

    Args:
        study: the study, its task loaded.
        admissions: candidates that passed the gate; the baselines first.
        device: where they would be trained.

    Returns:
        The fastest plan for each kind: the default one unless another is clearly faster.
    """
    plans: dict[str, Plan] = {}
    with numerics(study.training, device):
        for admission in admissions:
            kind = admission.network.kind
            if kind not in plans:
                plans[kind] = _fastest(study, admission, default_plan(kind, device), device)
    return plans


def fitting(plan: Plan, each: int, budget: int, candidates: int, tasks: int) -> Plan:
    """Return a plan whose chunks fit into memory.

    Args:
        plan: what is wanted.
        each: bytes that one task of one candidate needs.
        budget: bytes there are.
        candidates: in a pack.
        tasks: in a meta-batch.
    """
    room = max(1, budget // max(each, 1))
    tasks_at_once = min(plan.tasks or tasks, tasks)
    candidates_at_once = min(plan.candidates or candidates, candidates)
    if tasks_at_once * candidates_at_once <= room:
        return plan
    if tasks_at_once <= room:
        return replace(plan, candidates=room // tasks_at_once)
    return replace(plan, candidates=1, tasks=room)


def memory_budget(device: torch.device) -> int:
    """Return the bytes that one training may use: a share of all there are."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * MEMORY_SHARE["cuda"])
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(pages * MEMORY_SHARE["cpu"])


def _fastest(study: Study, admission: Admission, default: Plan, device: torch.device) -> Plan:
    each = _bytes_of_one(study, admission, device)
    budget, tasks = memory_budget(device), study.training.tasks
    best = fitting(default, each, budget, 1, tasks)
    seconds = _seconds(study, admission, best, device)
    wanted = seconds / WORTHWHILE
    for option in _options(admission.network.kind, default, device):
        plan = fitting(option, each, budget, 1, tasks)
        taken = _seconds(study, admission, plan, device)
        if taken < wanted:
            # once more: a machine that was busy for a moment must not slow a whole search down
            again = _seconds(study, admission, best, device)
            if taken < min(again / WORTHWHILE, wanted):
                best, seconds, wanted = plan, taken, taken
    total = seconds * study.training.iterations
    if total > COMPILE_FROM:
        compiled = replace(best, compile=True)
        started = time.perf_counter()
        taken = _seconds(study, admission, compiled, device)
        once = time.perf_counter() - started
        if taken * study.training.iterations + once < total / WORTHWHILE:
            best = compiled
    return best


def _options(kind: str, default: Plan, device: torch.device) -> list[Plan]:
    options = [LOOP, VMAP]
    if kind == "convolution":  # to others it is the same plan, faster by noise alone
        options.append(replace(default, channels_last=True))
    if device.type == "cuda":
        options.append(replace(default, graph=True))
    return [option for option in options if option != default]


def _bytes_of_one(study: Study, admission: Admission, device: torch.device) -> int:
    one = replace(study.training, tasks=1, iterations=1)
    trainer = _trainer(study, admission, one, LOOP, device)
    return peak_bytes(trainer.run)


def _seconds(study: Study, admission: Admission, plan: Plan, device: torch.device) -> float:
    """Return the shortest time of a meta-iteration; infinite if the plan does not work here.

    What else the machine does makes times longer, never shorter.
    """
    times = []
    try:
        trainer = _trainer(study, admission, study.training, plan, device)
        for iteration in range(1 + min(REPEATS, study.training.iterations - 1)):
            started = time.perf_counter()
            trainer.run(iteration + 1)
            times.append(time.perf_counter() - started)
    except Exception as error:  # no compiler, no memory, what cannot be mapped, ...
        log.info("the plan %s does not work here: %s: %s", plan, type(error).__name__, error)
        return float("inf")
    return min(times[1:] or times)


def _trainer(
    study: Study, admission: Admission, training: Training, plan: Plan, device: torch.device
) -> Trainer:
    return Trainer([admission.learner], study.task, training, seeds=[0], plan=plan, device=device)
