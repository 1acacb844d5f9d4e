"""A trained candidate as something to adapt and predict with."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.errors import EvometaError, StoreError
from evometa.evaluate import Checkpoint, Rejected, admit, parse_plan
from evometa.evaluate.checkpoint import checkpoint_path, load_checkpoint
from evometa.evaluate.evaluator import choose_device
from evometa.evaluate.training import meta_of
from evometa.learner import Learner, Meta, predictor, unmapped
from evometa.records import Candidate, Evaluation, Status
from evometa.reuse.arrays import Array, as_array, classes_of, over_tasks
from evometa.reuse.example import Example
from evometa.reuse.stored import StoredRun, read_run
from evometa.reuse.trainings import FOLDER
from evometa.store import Place, place, read_confirmed
from evometa.task.classes import class_count, labels_of
from evometa.task.episodes import examples_of, leading, over, part_of, to_device
from evometa.task.protocol import Batch, ClassBatch, EpisodeBatch, Task, sized

EXAMPLES = 20  # episodes that say what inputs are like
Progress: TypeAlias = Callable[[int, int], None]
"""Told the meta-iterations done, and how many there are."""


class TransductiveWarning(UserWarning):
    """A prediction depends on the inputs that are predicted with it, and there are few."""


@dataclass(frozen=True)
class FewShotLearner:
    """Adapts to a task from a few examples, as the candidate does that was meta-trained.

    Made by `load_learner`. Nothing is changed by adapting: each call starts from what was
    meta-trained, and returns a learner of its own.

    Attributes:
        learner: network and way of learning.
        meta: trained meta-parameters.
        example: what inputs are like.
        outputs: values of one prediction; None where predictions are classes.
        most: how many classes it can tell apart; None for any number.
        labels: the classes, sorted, where they mean the same in every task; else None.
        trained: where the meta-parameters come from, in words.
        together: queries that were predicted together in meta-training, if a prediction depends on
            those beside it; else 0.
        mapped: whether batches of tasks are mapped, or learned one after the other.
    """

    learner: Learner
    meta: Meta
    example: Example
    outputs: int | None
    most: int | None
    trained: str
    together: int = 0
    mapped: bool = True
    labels: tuple[Any, ...] | None = None

    @property
    def device(self) -> torch.device:
        """Where it adapts."""
        return next(iter(self.meta["params"].values())).device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return next(iter(self.meta["params"].values())).dtype

    def to(self, device: torch.device | str) -> FewShotLearner:
        """Return the learner on another device."""
        meta = {
            part: {name: value.to(device) for name, value in tensors.items()}
            for part, tensors in self.meta.items()
        }
        return replace(self, meta=meta)

    def adapt(self, x: Any, y: Array, *, steps: int | None = None) -> Adapted:
        """Learn a task, or a batch of tasks at once, from labelled examples.

        Args:
            x: what the network takes: an array of shape `(examples, *sample)`, or `(tasks,
                examples, *sample)`; or the dict, list or tuple of such arrays that it was
                meta-trained on.
            y: classes as any labels, shape `(examples,)` or `(tasks, examples)`; or real values,
                `(examples,)` or `(examples, outputs)`, with `tasks` before them in a batch.
            steps: inner steps; default as many as in meta-training.

        Returns:
            What predicts for new examples of the same tasks.

        Raises:
            EvometaError: if shapes, types or labels do not fit, or an input is not finite.
        """
        if steps is not None and (not isinstance(steps, int) or steps < 0):
            raise EvometaError(f"`steps >= 0` must hold, but got (steps={steps!r})")
        inputs, batched = self.inputs(x)
        shape = leading(inputs, 2)
        targets, classes, flat = self._targets(y, shape, batched=batched)
        support: Any = Batch(inputs, targets)
        if classes is not None:
            numbers = torch.arange(len(classes[0]), device=self.device).expand(shape[0], -1)
            support = ClassBatch(inputs, targets, numbers)
        single = not self.mapped or shape[0] == 1
        learner = unmapped(self.learner) if single else self.learner

        def task(side: Any) -> Any:
            return deque(learner.trajectory(self.meta, side, steps), maxlen=1)[0]

        adapted = over_tasks(task, (support,), mapped=not single)
        return Adapted(self, learner, adapted, classes, batched, not single, flat)

    def inputs(self, x: Any) -> tuple[Any, bool]:
        """Return inputs as a batch of tasks, and whether they were one.

        Raises:
            EvometaError: if they are not like those of meta-training.
        """
        given, batched = self.example.read(x)
        found = to_device(given, self.device)
        return (found, True) if batched else (over(lambda leaf: leaf.unsqueeze(0), found), False)

    def _targets(
        self, y: Array, shape: tuple[int, ...], *, batched: bool
    ) -> tuple[Tensor, list[npt.NDArray[Any]] | None, bool]:
        values = as_array(y)
        values = values if batched else values[None]
        if values.shape[:2] != shape:
            raise EvometaError(
                f"{' x '.join(map(str, shape[not batched :]))} inputs must have one target each, "
                f"but got targets of shape {tuple(np.shape(y))}"
            )
        if self.outputs is not None:
            flat = values.ndim == 2
            values = values[..., None] if flat else values
            if values.shape[2:] != (self.outputs,):
                raise EvometaError(
                    f"targets must have {self.outputs} values each, but got the shape {np.shape(y)}"
                )
            if values.dtype.kind not in "iufb":
                raise EvometaError(f"targets must be numbers, but got {values.dtype}")
            targets = torch.as_tensor(values.astype(np.float64))
            return targets.to(self.device, self.dtype), None, flat
        if values.ndim != 2:
            raise EvometaError(f"labels must be one a example, but got the shape {np.shape(y)}")
        classes = [classes_of(row, self.labels) for row in values]
        if len({len(each) for each in classes}) > 1:
            raise EvometaError(
                "the tasks of a batch must have equally many classes, but these have "
                f"{', '.join(str(len(each)) for each in classes)}"
            )
        if self.most is not None and len(classes[0]) > self.most:
            raise EvometaError(
                f"the network tells {self.most} classes apart, but these examples have "
                f"{len(classes[0])}"
            )
        numbers = np.stack(
            [np.searchsorted(c, row) for c, row in zip(classes, values, strict=True)]
        )
        return torch.as_tensor(numbers, device=self.device), classes, False


@dataclass(frozen=True)
class Adapted:
    """A learner that has seen the examples of a task, or of a batch of tasks.

    Attributes:
        learned_from: the learner that it was made by.
        prepared: the same, prepared to score.
        state: what it knows.
        labels: the classes of each task, sorted; None for real values.
        batched: whether there is an axis of tasks.
        mapped: whether it is mapped over.
        flat: whether targets had no axis of outputs.
    """

    learned_from: FewShotLearner
    prepared: Learner
    state: Any
    labels: list[npt.NDArray[Any]] | None
    batched: bool
    mapped: bool
    flat: bool

    @property
    def classes(self) -> npt.NDArray[Any]:
        """The classes, in the order of probabilities; shape `(classes,)`, or with `tasks` before.

        Raises:
            EvometaError: if there are none.
        """
        if self.labels is None:
            raise EvometaError("a learner of real values knows no classes")
        return np.stack(self.labels) if self.batched else self.labels[0]

    def predict(self, x: Any) -> Array:
        """Return the likeliest label of each input, or its values; an array for an array."""
        raw = self._raw(x)
        if self.labels is None:
            raw = raw[..., 0] if self.flat else raw
            return self._like(x, raw)
        best = raw.argmax(-1).cpu().numpy()
        names = np.stack([c[row] for c, row in zip(self.labels, best, strict=True)])
        names = names if self.batched else names[0]
        first = pytree.tree_leaves(x)[0]
        if isinstance(first, Tensor) and names.dtype.kind in "iufb":
            return torch.as_tensor(names, device=first.device)
        return names

    def predict_proba(self, x: Any) -> Array:
        """Return the probability of each class, in the order of `classes`.

        Raises:
            EvometaError: if there are no classes.
        """
        _ = self.classes
        return self._like(x, self._raw(x).softmax(-1))

    def _raw(self, x: Any) -> Tensor:
        """Return logits or values, shape `(tasks, examples, outputs)`."""
        inputs, batched = self.learned_from.inputs(x)
        self._warn(leading(inputs, 2)[1])
        if batched != self.batched:
            raise EvometaError(
                "new inputs must have an axis of tasks exactly if those that were adapted to had "
                f"one, but got the shape {leading(inputs, 2)[not batched :]} of tasks and examples"
            )
        tasks = len(self.state) if not self.mapped else len(pytree.tree_leaves(self.state)[0])
        given = leading(inputs, 1)[0]
        if given != tasks:
            raise EvometaError(f"there are {tasks} adapted tasks, but inputs of {given}")
        with torch.no_grad():
            outputs: Tensor = over_tasks(
                lambda state, new: predictor(self.prepared, state)(new),
                (self.state, inputs),
                mapped=self.mapped,
            )
        outputs = outputs if isinstance(outputs, Tensor) else torch.stack(outputs)
        return outputs if self.labels is None else outputs[..., : len(self.labels[0])]

    def _warn(self, queries: int) -> None:
        """Say that few queries are predicted worse, where a prediction depends on its company."""
        if queries < self.learned_from.together / 2:
            warnings.warn(
                f"this learner is transductive: batch norm normalises the {queries} new inputs by "
                "their own statistics, and it was meta-trained and scored on "
                f"{self.learned_from.together} together. Predict more at once, or meta-train with "
                "Training(norm='inductive')",
                TransductiveWarning,
                stacklevel=4,
            )

    def _like(self, x: Any, values: Tensor) -> Array:
        values = values if self.batched else values[0]
        first = pytree.tree_leaves(x)[0]
        return values.to(first.device) if isinstance(first, Tensor) else values.cpu().numpy()


def load_learner(
    run: Place | str | StoredRun,
    candidate_id: str,
    *,
    data: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> FewShotLearner:
    """Return a candidate of a run, trained, to adapt to tasks of one's own.

    The study file that the run keeps is run. Where `evometa confirm` has trained the candidate, its
    weights are used; otherwise it is trained again from its genome and seed, in full. It computes
    in single precision, also where the study trains in a lower one.

    Args:
        run: a run directory, or its URL.
        candidate_id: of the candidate.
        data: where the task's data is now; default where it was.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...; see also `FewShotLearner.to`.
        progress: called while it is trained with the meta-iterations done, and how many there are.

    Raises:
        StoreError: if there is no such run or candidate.
        StudyError: if the study or its data is not what it was.
        EvometaError: if the candidate cannot be trained.
    """
    stored = run if isinstance(run, StoredRun) else read_run(place(run), data)
    return trained(stored, candidate_id, device=device, progress=progress)[0]


def trained(
    stored: StoredRun, candidate_id: str, *, device: str = "auto", progress: Progress | None = None
) -> tuple[FewShotLearner, Evaluation | None]:
    """Return a candidate's learner, and its new evaluation if it had to be trained again.

    Raises:
        StoreError: if there is no such candidate.
        EvometaError: if it cannot be trained.
    """
    stored_evaluation = stored.evaluation(candidate_id)
    candidate = replace(stored_evaluation.candidate, rung=len(stored.file.study.rungs))
    where = choose_device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise EvometaError(f"`device` is {device!r}, but this machine has no CUDA device")
    study = stored.file.study
    plans = {kind: parse_plan(text) for kind, text in stored.settings.plans.items()}
    try:
        admission = admit(study, candidate.genome, candidate.seed, where, plans)
    except Rejected as reason:
        raise EvometaError(f"{candidate_id} cannot be trained: {reason}") from reason
    checkpoint, said = _confirmed(stored, candidate, admission.learner)
    now = None
    if checkpoint is None:
        checkpoint, now = _train(stored, candidate, device, progress)
        said = f"for {study.training.iterations:,} meta-iterations, with the seed of the search"
    generator = torch.Generator().manual_seed(0)
    task = sized(study.task, "example")
    episodes = task.episodes("meta-train", EXAMPLES, generator)
    queries = examples_of(part_of(episodes.query, 0))
    company = study.training.norm == "transductive" and admission.network.has_batch_norm
    learner = FewShotLearner(
        admission.learner,
        meta_of(checkpoint, admission.meta),
        Example.of(task, episodes.support),
        *_outputs(episodes, admission.learner, study.task),
        said,
        together=queries if company else 0,
        mapped=admission.plan.tasks != 1,
        labels=labels_of(study.task),
    )
    return learner.to(where), now


def _train(
    stored: StoredRun, candidate: Candidate, device: str, progress: Progress | None
) -> tuple[Checkpoint, Evaluation]:
    """Train a candidate in full, as the search would, through all its rungs."""
    with tempfile.TemporaryDirectory() as folder:
        evaluate = replace(stored.evaluator(device), keep=folder, progress=progress)
        evaluation = evaluate([candidate])[0]
        if evaluation.status is not Status.OK:
            why = (evaluation.error.strip().splitlines() or [""])[-1]
            raise EvometaError(f"{candidate.id} cannot be trained: {evaluation.status}, {why}")
        return load_checkpoint(checkpoint_path(Path(folder), candidate)), evaluation


def _confirmed(
    stored: StoredRun, candidate: Candidate, learner: Learner
) -> tuple[Checkpoint | None, str]:
    """Return a training of the confirmation that succeeded, and what it is, if there is one."""
    table = read_confirmed(stored.place) if isinstance(stored.place, Path) else None
    for row in [] if table is None else table.sort_by("repeat").to_pylist():
        if row["number"] != candidate.number or row["status"] != Status.OK:
            continue
        folder, repeat = Path(str(stored.place)) / FOLDER, row["repeat"]
        path = checkpoint_path(folder, replace(candidate, repeat=repeat))
        if not path.exists():  # named as it was up to schema version 2
            path = folder / f"c{1000 * candidate.number + repeat:06d}.safetensors"
        said = f"for {row['iterations']:,} meta-iterations, by the confirmation, seed {repeat}"
        with contextlib.suppress(StoreError):  # deleted, or torn: another seed will do
            return load_checkpoint(path, learner.traits.structure), said
    return None, ""


def _outputs(episodes: EpisodeBatch, learner: Learner, task: Task) -> tuple[int | None, int | None]:
    """Return how many values a prediction has, and how many classes there may be.

    Raises:
        EvometaError: if the task has no labelled examples.
    """
    targets = getattr(episodes.support, "targets", None)
    if not isinstance(targets, Tensor):
        raise EvometaError(
            "a learner is loaded to adapt to labelled examples, and the task has none"
        )
    if targets.is_floating_point():
        return targets.shape[-1], None
    if learner.traits.any_ways and labels_of(task) is None:
        return None, None
    most = class_count(task)
    return None, int(targets.max()) + 1 if most is None else most
