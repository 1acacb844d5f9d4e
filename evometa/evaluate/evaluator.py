"""The one callable that turns candidates into evaluations, wherever it runs."""

from __future__ import annotations

import copy
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from evometa.errors import StoreError, StudyError
from evometa.evaluate.checkpoint import (
    EVERY,
    Start,
    checkpoint_path,
    find_start,
    learned,
    prune,
    save_checkpoint,
    stages_to,
)
from evometa.evaluate.faults import asked_first
from evometa.evaluate.gate import admit
from evometa.evaluate.measuring import Measured, adapting, measured
from evometa.evaluate.members import Late, Member, capped, failed, together
from evometa.evaluate.memory import peak_memory
from evometa.evaluate.plan import parse_plan
from evometa.evaluate.randomness import forked_random
from evometa.evaluate.scoring import Outcome, score, score_one_by_one
from evometa.evaluate.settings import numerics
from evometa.evaluate.training import Trained, Trainer
from evometa.learner import Learner, Meta
from evometa.limits import violation
from evometa.records import Candidate, Evaluation, Key, Status, derive_seed
from evometa.study import Study
from evometa.task.episodes import over, part_of
from evometa.task.protocol import EpisodeBatch, sized, varies
from evometa.user_code import copied, user_code

log = logging.getLogger(__name__)

VALIDATION = "meta-validation"
SHAPES = 10  # different ones among the episodes that candidates are scored on, if they vary


@dataclass(frozen=True)
class Evaluator:
    """Meta-trains candidates on `meta-train` and scores them on `meta-validation`.

    An evaluation depends on the genome, the seed and the study alone. All candidates are scored on
    the same episodes, so that their differences are paired. Candidates of one call that differ in
    numbers, or in the updates of their rules, are trained together, as a pack; their results equal
    the single ones up to rounding.

    Attributes:
        study: the study, its task loaded.
        seed: the study's seed; draws the common episodes.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, ...
        plans: how inner loops are executed: `"dense"` and `"convolution"` networks to the text of
            a plan; those that are not named run by `default_plan`.
        weights: folder of the checkpoints with which promoted candidates go on; without one, or
            where it is not reached, they are trained from the start, to the same end.
        late: asked between blocks of meta-iterations whether the time is over.
        splits: on which splits candidates are scored, and on how many episodes; the first one gives
            the metrics. Default: meta-validation, as the study says.
        keep: folder for the meta-parameters of candidates that succeed; default none.
        progress: told now and then the meta-iterations done and how many there are; default none.
    """

    study: Study
    seed: int = 0
    device: str = "auto"
    plans: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    late: Callable[[], bool] | None = None
    splits: Mapping[str, int] = field(default_factory=dict)
    keep: str | None = None
    progress: Callable[[int, int], None] | None = None

    def until(self, late: Callable[[], bool]) -> Evaluator:
        """Return the same evaluator, which stops with `TIMEOUT` when `late` says so."""
        return replace(self, late=late)

    def __call__(self, pack: Sequence[Candidate]) -> list[Evaluation]:
        """Evaluate the candidates of a pack; never raises for what a candidate does."""
        device = choose_device(self.device)
        results: dict[Key, Evaluation] = {}
        groups: dict[object, list[Member]] = {}
        with user_code(), numerics(self.study.training, device), _one_thread(device):
            for candidate in pack:
                blank = self._blank(candidate, device)
                started = time.perf_counter()
                try:
                    member = self._admit(candidate, blank, device)
                except Exception as error:
                    seconds = time.perf_counter() - started
                    results[candidate.key] = replace(failed(blank, error), seconds=seconds)
                    continue
                groups.setdefault(member.company, []).append(member)
            for members in groups.values():
                for result in self._evaluate(members, device):
                    results[result.candidate.key] = result
        return [results[candidate.key] for candidate in pack]

    def episodes(self, rung: int = -1, split: str = VALIDATION) -> list[EpisodeBatch]:
        """Draw the common episodes of a rung, by default of the last one: a batch of each shape."""
        level = self.study.levels[rung]
        count = self.splits.get(split, level.training.validation)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, split))
        shapes = min(SHAPES, count) if varies(level.task) else 1
        return [
            sized(level.task, split, shape).episodes(
                split, len(range(shape, count, shapes)), generator
            )
            for shape in range(shapes)
        ]

    def _admit(self, candidate: Candidate, blank: Evaluation, device: torch.device) -> Member:
        plans = {kind: parse_plan(text) for kind, text in self.plans.items()}
        stages = stages_to(self.study.levels, candidate.rung)
        admissions = []
        for rung in stages:
            level, study = self.study.levels[rung], self.study
            if level.task is not study.task or level.training != study.training:
                study = replace(study, task=level.task, training=level.training, rungs=())
            genome = capped(candidate.genome, level.steps, study.all_families)
            admissions.append(admit(study, genome, candidate.seed, device, plans))
        start = Start(candidate, 0, None)
        if self.weights:
            start = find_start(Path(self.weights), candidate, admissions[-1].network.structure)
        return Member(blank, admissions, stages, start)

    def _evaluate(self, members: list[Member], device: torch.device) -> list[Evaluation]:
        """Evaluate candidates of equal structure; each is charged an equal share of the time."""
        started = time.perf_counter()
        try:
            results = self._measure(members, device)
        except Exception as error:
            if len(members) > 1 and not isinstance(
                error, Late
            ):  # one of them is to blame: find out which
                return [self._evaluate([member], device)[0] for member in members]
            results = [failed(member.blank, error) for member in members]
        seconds = (time.perf_counter() - started) / len(members)
        return [
            replace(result, seconds=seconds + sum(a.seconds for a in member.admissions))
            for result, member in zip(results, members, strict=True)
        ]

    def _measure(self, members: list[Member], device: torch.device) -> list[Evaluation]:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        level = self.study.levels[members[0].rung]
        trainer, learners = self._train(members, device)
        self._save(members, trainer)
        trained = trainer.results()
        alive = [index for index, result in enumerate(trained) if not result.diverged]
        outcomes: dict[int, dict[str, Outcome]] = {index: {} for index in range(len(members))}
        for split in (self.splits or (VALIDATION,)) if alive else ():
            with forked_random(derive_seed(members[0].blank.candidate.seed, "meta-train")):
                scored = score(
                    [learners[index] for index in alive],
                    [trained[index].meta for index in alive],
                    level.task,
                    self.episodes(members[0].rung, split),
                    plan=trainer.plan,
                    device=device,
                    steps=level.training.later,
                    singles=[members[index].admission.learner for index in alive],
                )
            for index, outcome in zip(alive, scored, strict=True):
                outcomes[index][split] = outcome
        extra = {index: self._extra(members[index], trained[index].meta, device) for index in alive}
        results = [
            self._result(
                member, trained[index], outcomes[index], extra.get(index, {}), trainer, device
            )
            for index, member in enumerate(members)
        ]
        self._keep(results, trainer)
        return results

    def _train(self, members: list[Member], device: torch.device) -> tuple[Trainer, list[Learner]]:
        """Train through the stages that are not behind yet, each as far as its last rung goes."""
        checkpoints = [member.start.checkpoint for member in members]
        first = members[0]
        ahead = [i for i, rung in enumerate(first.stages) if rung >= first.start.rung]
        for stage in ahead:
            level = self.study.levels[first.stages[stage]]
            learners, metas, plan = together(members, stage, self.study.all_families)
            seeds = [derive_seed(member.blank.candidate.seed, "meta-train") for member in members]
            trainer = Trainer(
                learners,
                level.task,
                level.training,
                seeds=seeds,
                plan=plan,
                device=device,
                metas=metas,
                checkpoints=[kept for kept in checkpoints if kept is not None],
            )
            trainer.run(level.iterations, self._look)
            checkpoints = [trainer.checkpoint(index) for index in range(len(members))]
        return trainer, learners

    def _look(self, iteration: int, loss: float) -> None:
        """Tell how far the training is, and end it where the time is over."""
        if self.progress is not None:
            self.progress(iteration, self.study.training.iterations)
        if self.late is not None and self.late():
            raise Late(f"the time limit was reached at meta-iteration {iteration}")

    def _save(self, members: list[Member], trainer: Trainer) -> None:
        """Keep what a promoted candidate will go on from."""
        levels, rung = self.study.levels, members[0].rung
        if not self.weights or not levels[rung].iterations or rung + 1 == len(levels):
            return
        folder = Path(self.weights)
        for index, member in enumerate(members):
            checkpoint = trainer.checkpoint(index)
            path = checkpoint_path(folder, member.blank.candidate)
            try:
                save_checkpoint(path, checkpoint, member.admission.network.structure, rung)
            except StoreError as error:
                log.warning("%s; if it is promoted, it is trained from the start", error)
            if not member.blank.candidate.number % EVERY:
                prune(folder)

    def _keep(self, results: Sequence[Evaluation], trainer: Trainer) -> None:
        """Keep what has been learned with success, for others to adapt with."""
        for index, result in enumerate(results if self.keep else ()):
            if result.status is not Status.OK:
                continue
            path = checkpoint_path(Path(str(self.keep)), result.candidate)
            try:
                save_checkpoint(path, learned(trainer.checkpoint(index)), trainer.structure)
            except StoreError as error:
                log.warning("%s; whoever wants the weights must train them again", error)

    def _extra(self, member: Member, meta: Meta, device: torch.device) -> dict[str, float]:
        """Return what is measured of a trained candidate besides its scores."""
        study, admission = self.study, member.admission
        task, found = study.levels[member.rung].task, dict(admission.measures)
        episodes = self.episodes(member.rung, next(iter(self.splits), VALIDATION))[0]
        if any(measure.trained for measure in study.measures.values()):
            support = part_of(episodes.support, 0)
            own = {part: over(lambda leaf: leaf.cpu(), kept) for part, kept in meta.items()}

            def candidate() -> Measured:
                module = copy.deepcopy(admission.module).eval()
                fitting = module.state_dict()
                new = {**own["params"], **own["buffers"]}
                new = {k: v for k, v in new.items() if k in fitting and v.shape == fitting[k].shape}
                module.load_state_dict(new, strict=False)
                inputs = over(torch.clone, asked_first(task, support))
                genome = copied(member.blank.candidate.genome)
                return Measured(genome, module, inputs, adapting(admission.learner, own, support))

            with user_code(0):
                found |= measured(study.measures, candidate, trained=True)
        if study.training.norm == "transductive" and admission.network.has_batch_norm:
            scores = score_one_by_one(admission.learner, meta, task, episodes, device)
            first = study.scored
            found[f"one_by_one_{first}"] = study.task_metrics[first].value(scores[first])
        return found

    def _result(
        self,
        member: Member,
        trained: Trained,
        outcomes: Mapping[str, Outcome],
        extra: Mapping[str, float],
        trainer: Trainer,
        device: torch.device,
    ) -> Evaluation:
        admission, first, declared = member.admission, self.study.scored, self.study.task_metrics
        known = replace(
            member.blank,
            signature=admission.signature,
            network=admission.network.text,
            plan=str(trainer.plan),
            note=admission.note,
            peak_memory_bytes=peak_memory(device),
        )
        odd = (f"{each.diverged} of {split}" for split, each in outcomes.items() if each.diverged)
        why = trained.diverged or next(odd, "")
        if why:
            return replace(known, status=Status.DIVERGED, error=why)
        outcome, *_ = outcomes.values()
        metrics = {name: declared[name].value(scores) for name, scores in outcome.scores.items()}
        metric = declared[first]
        means = outcome.means(first, metric)
        if self.study.training.later:
            worst = min if metric.direction == "max" else max
            metrics[f"later_{first}"] = worst(means[outcome.trained :])
        if self.study.training.norm == "transductive":
            metrics[f"one_by_one_{first}"] = metrics[first]  # unless there is batch norm
        metrics |= {
            "params": float(admission.cost.params),
            "macs": float(admission.cost.macs),
            "rule_size": float(admission.rule_size),
            "adapt_seconds": outcome.adapt_seconds,
            "adapt_bytes": float(outcome.adapt_bytes),
            **extra,
        }
        return replace(
            known,
            status=Status.OK,
            metrics=metrics,
            violation=violation(metrics, self.study.limits),
            scores=tuple(metric.each(outcome.scores[first])),
            steps=tuple(means),
            curve=trained.curve,
            interval=metric.half_interval(outcome.scores[first]),
            further={
                split: tuple(metric.each(each.scores[first]))
                for split, each in list(outcomes.items())[1:]
            },
        )

    def _blank(self, candidate: Candidate, device: torch.device) -> Evaluation:
        return Evaluation(
            candidate,
            Status.ERROR,
            norm=self.study.training.norm,
            device=device_name(device),
            node=platform.node(),
            started_at=time.time(),
        )


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Compute with one thread on a CPU: a worker a core is faster, and results do not vary."""
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `"auto"` is CUDA where there is one.

    Raises:
        StudyError: if PyTorch knows no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise StudyError(f"`device` must be 'auto', 'cpu', 'cuda', ..., got {name!r}") from error


def device_name(device: torch.device) -> str:
    """Return a name a person knows: the card's, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
