"""What a study file would cost, before anything is trained."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from evometa.evaluate import Admission, Rejected, Trainer, admit, check_episodes, score
from evometa.evaluate.evaluator import Evaluator, choose_device
from evometa.records import Genome, derive_seed
from evometa.report.show import brief
from evometa.study import Study
from evometa.study_file import StudyFile, watched

TIMED_CANDIDATES = 5
TIMED_ITERATIONS = 3
TIMED_EPISODES = 4


@watched()
def print_check(console: Console, file: StudyFile, samples: int, seed: int) -> None:
    """Draw genomes, pass them through the gate, time a few meta-iterations, and print all."""
    study, device = file.study, choose_device("auto")
    size = study.space.size()
    console.print(f"[bold]{escape(str(file.path))}[/]")
    for name, text in readings(study):
        _line(console, name, text)
    _line(console, "space", f"{size:.3g} points" if size < float("inf") else "continuous")
    _line(console, "genes", ", ".join(study.space.genes()) or "all inside lists and branches")
    _line(console, "objectives", ", ".join(f"{k} ({v})" for k, v in study.objectives.items()))
    for name, genome in study.baselines.items():
        _line(console, f"baseline {name}", _verdict(study, genome, seed, device))
    check_episodes(study.task)
    rng = np.random.default_rng(derive_seed(seed, "check"))
    genomes = [study.space.sample(rng) for _ in range(samples)]
    for genome in genomes[:3]:
        _line(console, "sample", brief(genome))
    admitted: list[Admission] = []
    reasons: Counter[str] = Counter()
    for genome in genomes:
        try:
            admitted.append(admit(study, genome, seed, device))
        except Rejected as reason:
            reasons[str(reason)] += 1
    _line(console, "gate", f"{len(admitted)} of {samples} samples pass")
    for text, count in reasons.most_common(5):
        _line(console, f"  {count} rejected", text)
    if admitted:
        _print_costs(console, study, admitted, seed, device)
    for name, text in kept_files(file):
        _line(console, name, text)


def kept_files(file: StudyFile) -> list[tuple[str, str]]:
    """Return what a run keeps of a study, and what it only names: headings and texts.

    Files that the study opens are known once it has been tried.
    """
    bundle = file.bundle()
    found = [
        (len(data), f"{name}, {_bytes(len(data))}, sha256 {hashlib.sha256(data).hexdigest()[:12]}")
        for name, data in bundle.small.items()
    ]
    named = [
        f"{name}, {_bytes(Path(each.path).stat().st_size)}, sha256 {each.sha256[:12]}; too large "
        f"to be kept, it must stay at {each.path}"
        for name, each in bundle.large.items()
    ]
    total = f"{len(found)} with {_bytes(sum(size for size, _ in found))}, which a run keeps"
    lines = [("files", total), *(("", text) for _, text in found)]
    return lines + [("named alone", text) for text in named]


def _bytes(size: int) -> str:
    return f"{size:,} bytes" if size < 10_000 else f"{size / 2**20:,.2f} MiB"


def readings(study: Study) -> list[tuple[str, str]]:
    """Return what the tasks' data was read as: headings and texts; nothing for other tasks."""
    tasks = [study.task, *(rung.task for rung in study.rungs if rung.task)]
    found = [getattr(task, "reading", None) for task in tasks]
    return list(dict.fromkeys(line for reading in found if reading for line in reading.lines()))


def estimate_seconds(study: Study, admission: Admission, seed: int, device: torch.device) -> float:
    """Estimate what one evaluation takes, from a few meta-iterations and episodes of it."""
    torch.set_num_threads(1)
    short = study.with_training(iterations=TIMED_ITERATIONS, validation=TIMED_EPISODES)
    started = time.perf_counter()
    trainer = Trainer(
        [admission.learner],
        study.task,
        short.training,
        seeds=[seed],
        plan=admission.plan,
        device=device,
    )
    trainer.run()
    each = (time.perf_counter() - started) / TIMED_ITERATIONS
    started = time.perf_counter()
    score(
        [admission.learner],
        [trainer.results()[0].meta],
        study.task,
        Evaluator(short, seed).episodes(),
        plan=trainer.plan,
        device=device,
    )
    scoring = (time.perf_counter() - started) / TIMED_EPISODES
    return each * study.training.iterations + scoring * study.training.validation


def _print_costs(
    console: Console, study: Study, admitted: list[Admission], seed: int, device: torch.device
) -> None:
    params = sorted(admission.cost.params for admission in admitted)
    macs = sorted(admission.cost.macs for admission in admitted)
    gate = statistics.median(admission.seconds for admission in admitted)
    _line(console, "params", _spread(params))
    _line(console, "macs", _spread(macs))
    _line(console, "gate time", f"{gate * 1000:.0f} ms a candidate")
    seconds = [
        estimate_seconds(study, admission, seed, device)
        for admission in admitted[:TIMED_CANDIDATES]
    ]
    mean = statistics.fmean(seconds)
    _line(
        console,
        "time",
        f"about {mean:.1f} s a candidate on one worker ({device.type}), "
        f"{mean * study.candidates / 60:.1f} worker-minutes for {study.candidates}",
    )


def _verdict(study: Study, genome: Genome, seed: int, device: torch.device) -> str:
    try:
        cost = admit(study, genome, seed, device).cost
    except Rejected as reason:
        return f"rejected: {reason}"
    return f"passes, {cost.params:,} parameters, {cost.macs:,} multiply-accumulates"


def _spread(values: list[int]) -> str:
    return f"{values[0]:,} to {values[-1]:,}, median {values[len(values) // 2]:,}"


def _line(console: Console, name: str, text: str) -> None:
    console.print(f"  {name:<14} {escape(text)}", highlight=False, soft_wrap=True)
