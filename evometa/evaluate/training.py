"""Meta-train a pack of learners."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evometa.evaluate.optimiser import outer_step
from evometa.evaluate.pack import CARRIED, TRAINED, Pack
from evometa.evaluate.plan import Plan
from evometa.evaluate.program import MetaGradient, Program, shapes_of
from evometa.evaluate.randomness import begin, forked_random, random_from, random_state
from evometa.learner import Learner, Meta, Tensors, Traits, stage_at
from evometa.records import derive_seed
from evometa.study import Training
from evometa.task.episodes import part_of, to_device
from evometa.task.protocol import EpisodeBatch, Task, sized, varies

CURVE_POINTS = 20
BLOCK_BYTES = 2**23  # episodes are drawn some meta-iterations at once, up to this size
BLOCK_MOST = 64
MOMENTS = ("first", "second")

Checkpoint = dict[str, Tensor]
"""All there is to know to go on with one candidate, by name."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate after meta-training.

    Attributes:
        meta: its meta-parameters.
        curve: about 20 points `(meta-iteration, mean query loss since the last)`.
        diverged: when its loss or a parameter became NaN or infinite; empty if never.
    """

    meta: Meta
    curve: tuple[tuple[int, float], ...]
    diverged: str


class Trainer:
    """Meta-trains learners of equal structure together.

    What a candidate learns depends on its learner, its seed and the training alone, up to the
    rounding of different plans: not on its neighbours, nor on breaks.

    Args:
        learners: equal in structure; each gives its initial meta-parameters.
        task: where episodes come from; only `meta-train` is drawn.
        training: iterations and tasks of a meta-batch.
        seeds: one a learner; seeds its episodes.
        plan: how meta-gradients are computed.
        device: where.
        metas: one a learner, to begin with; default what its seed gives.
        checkpoints: one a learner, to go on from; all equally far.

    Raises:
        ValueError: if the learners differ in structure.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        task: Task,
        training: Training,
        *,
        seeds: Sequence[int],
        plan: Plan,
        device: torch.device,
        metas: Sequence[Meta] = (),
        checkpoints: Sequence[Checkpoint] = (),
    ) -> None:
        traits = [learner.traits for learner in learners]
        if len({each.structure for each in traits}) != 1:
            raise ValueError("the learners of a pack must be equal in structure")
        self._learner, self._traits = learners[0], traits[0]
        self._task = training_task(task, self._traits)
        self._training, self._plan, self._device = training, plan, device
        self._seeds = list(seeds)
        self._programs: dict[str, Program] = {}
        self._graphs: dict[Any, _Captured] = {}
        metas = metas or [begin(own, seed) for own, seed in zip(learners, seeds, strict=True)]
        self.pack = Pack.of(metas, [each.outer.rate for each in traits], device)
        self._losses = self.pack.flat.new_empty((0, len(learners)), device="cpu")
        self._diverged = [""] * len(learners)
        with forked_random(derive_seed(seeds[0], "meta-train")):
            self._random = random_state()
        self._block = self._block_size()
        self._drawn: tuple[int, EpisodeBatch] | None = None
        if checkpoints:
            self._restore(checkpoints)

    @property
    def iteration(self) -> int:
        """Meta-iterations done."""
        return self.pack.iteration

    @property
    def structure(self) -> str:
        """Text that is equal for learners which differ only in numbers."""
        return self._traits.structure

    @property
    def plan(self) -> Plan:
        """The plan in use; smaller than the one asked for after running out of memory."""
        return next((program.plan for program in self._programs.values()), self._plan)

    def run(
        self, until: int | None = None, progress: Callable[[int, float], None] | None = None
    ) -> None:
        """Meta-train up to an iteration, and stop early if all candidates have diverged.

        Args:
            until: meta-iterations in all; default the training's.
            progress: called after each block of meta-iterations with how many are done, and the
                pack's median loss.

        Raises:
            torch.OutOfMemoryError: if a single task of a single candidate does not fit.
        """
        end = self._training.iterations if until is None else until
        with random_from(self._random):
            while self.pack.iteration < end and not all(self._diverged):
                self._run_block(end)
                if progress is not None:
                    progress(self.pack.iteration, float(self._losses[-1].median()))
            self._random = random_state()

    def results(self) -> list[Trained]:
        """Return what was learned, one result a candidate."""
        curves = [self._curve(column) for column in self._losses.unbind(1)]
        finite = self.pack.flat.isfinite().all(1).tolist()
        late = f"a parameter is not finite after {self.iteration} meta-iterations"
        return [
            Trained(self.pack.meta(index), curves[index], why or ("" if finite[index] else late))
            for index, why in enumerate(self._diverged)
        ]

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the candidates; the others leave the pack."""
        self.pack = self.pack.keep(indices)
        self._losses = self._losses[:, list(indices)]
        self._diverged = [self._diverged[index] for index in indices]
        self._seeds = [self._seeds[index] for index in indices]
        self._drawn = None
        self._graphs.clear()

    def checkpoint(self, index: int) -> Checkpoint:
        """Return all that is needed to go on with a candidate, as tensors on the CPU."""
        meta = self.pack.meta(index)
        tensors = {
            f"{part}/{name}": value
            for part in (*TRAINED, *CARRIED)
            for name, value in meta[part].items()
        }
        for moment in MOMENTS:
            parts = self.pack.layout.unflatten(getattr(self.pack, moment)[index])
            tensors |= {f"{moment}/{p}/{n}": v for p, vs in parts.items() for n, v in vs.items()}
        tensors |= {
            "losses": self._losses[:, index],
            "iteration": torch.tensor(self.pack.iteration),
            **{f"random/{name}": state for name, state in self._random.items()},
        }
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def _restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        iterations = {int(kept["iteration"]) for kept in checkpoints}
        if len(iterations) != 1:
            raise ValueError(f"checkpoints of a pack must be equally far, got {sorted(iterations)}")
        rates, random = self.pack.rates, checkpoints[0]
        fresh = [self.pack.meta(index) for index in range(len(self.pack))]
        metas = [meta_of(kept, own) for kept, own in zip(checkpoints, fresh, strict=True)]
        self.pack = Pack.of(metas, [0.0] * len(metas), self._device)
        self.pack.rates = rates
        for moment in MOMENTS:
            parts = (_moment_of(k, moment, m) for k, m in zip(checkpoints, metas, strict=True))
            rows = torch.stack([self.pack.layout.flatten(each) for each in parts])
            setattr(self.pack, moment, rows.to(self._device))
        self.pack.iteration = iterations.pop()
        self._losses = torch.stack([kept["losses"] for kept in checkpoints], 1)
        self._watch(self._losses, 0)
        self._random = {
            name.removeprefix("random/"): value
            for name, value in random.items()
            if name.startswith("random/")
        }

    def _run_block(self, end: int) -> None:
        """Run the rest of a block of meta-iterations, whose episodes are drawn at once."""
        begin = self.pack.iteration
        number, offset = divmod(begin, self._block)
        count = min(self._block - offset, end - begin)
        if self._drawn is None or self._drawn[0] != number:
            self._drawn = None  # let go of the last block before the next one is made
            self._drawn = (number, self._draw(number))
        episodes = self._drawn[1]
        losses = self.pack.flat.new_empty((count, len(self.pack)))
        for row in range(count):
            losses[row] = self._iterate(part_of(episodes, offset + row))
        self._losses = torch.cat([self._losses, losses.cpu()])
        self._watch(self._losses[begin:], begin)

    def _iterate(self, episodes: EpisodeBatch) -> Tensor:
        progress = self.pack.iteration / self._training.iterations
        stage, outer = stage_at(self._learner, self._traits, progress), self._traits.outer
        program = self._programs.get(stage.name)
        if program is None:
            program = Program(stage.learner, self.pack.layout, self.plan)
            self._programs[stage.name] = program
        numbers = {name: value.to(self._device) for name, value in stage.numbers.items()}
        rates = self.pack.rates * outer.factor(progress)
        self.pack.iteration += 1
        count = torch.tensor(float(self.pack.iteration), dtype=torch.float64, device=self._device)
        inputs = _StepInputs(numbers, rates, count, episodes)
        if not (program.plan.graph and self._device.type == "cuda"):
            return _step(program, self.pack, outer.optimiser, inputs)
        key = (stage.name, shapes_of(episodes))
        if key not in self._graphs:
            self._graphs[key] = _Captured(program, self.pack, outer.optimiser, inputs)
        return self._graphs[key].replay(inputs)

    def _draw(self, block: int) -> EpisodeBatch:
        """Draw a block of episodes: `(meta-iterations, candidates, tasks, examples, ...)`."""
        tasks, task = self._training.tasks, sized(self._task, "meta-train", block)
        drawn = []
        for seed in self._seeds:
            generator = torch.Generator().manual_seed(derive_seed(seed, "episodes", block))
            batch = task.episodes("meta-train", tasks * self._block, generator)
            drawn.append(pytree.tree_map(lambda v: v.unflatten(0, (self._block, tasks)), batch))
        stacked = pytree.tree_map(lambda *values: torch.stack(values, 1), *drawn)
        return to_device(stacked, self._device)  # type: ignore[no-any-return]

    def _block_size(self) -> int:
        if varies(self._task):
            return 1
        episode = self._task.episodes("meta-train", 1, torch.Generator().manual_seed(0))
        size: int = sum(leaf.nbytes for leaf in pytree.tree_leaves(episode)) * self._training.tasks
        return max(1, min(BLOCK_BYTES // size, BLOCK_MOST, self._training.iterations))

    def _watch(self, losses: Tensor, begin: int) -> None:
        """Write down who has diverged within the losses from meta-iteration `begin` on."""
        for index in (~losses.isfinite()).any(0).nonzero().flatten().tolist():
            row = int((~losses[:, index].isfinite()).nonzero()[0])
            self._diverged[index] = self._diverged[index] or (
                f"the meta-training loss became {float(losses[row, index])} "
                f"at meta-iteration {begin + row + 1}"
            )

    def _curve(self, losses: Tensor) -> tuple[tuple[int, float], ...]:
        every = max(1, self._training.iterations // CURVE_POINTS)
        values = losses.tolist()
        stops = [*range(every, len(values), every), len(values)] if values else []
        points, start = [], 0
        for stop in stops:
            points.append((stop, statistics.fmean(values[start:stop])))
            start = stop
        return tuple(points)


@dataclass
class _StepInputs:
    """What changes from one outer step to the next."""

    numbers: Tensors
    rates: Tensor
    count: Tensor
    episodes: EpisodeBatch

    def tensors(self) -> list[Tensor]:
        drawn = pytree.tree_leaves(self.episodes)
        return [*self.numbers.values(), self.rates, self.count, *drawn]


def _step(program: Program, pack: Pack, optimiser: str, inputs: _StepInputs) -> Tensor:
    """Do one outer step in place; return the losses, shape `(candidates,)`."""
    found: MetaGradient = program(pack, inputs.numbers, inputs.episodes)
    outer_step(pack, found.grads, optimiser, inputs.rates, inputs.count)
    for name, value in found.buffers.items():
        pack.carried["buffers"][name].copy_(value)
    return found.losses


class _Captured:
    """A whole outer step as a CUDA graph."""

    def __init__(self, program: Program, pack: Pack, optimiser: str, inputs: _StepInputs) -> None:
        self._inputs = _StepInputs(
            {name: value.clone() for name, value in inputs.numbers.items()},
            inputs.rates.clone(),
            inputs.count.clone(),
            pytree.tree_map(torch.clone, inputs.episodes),
        )
        state = [pack.flat, pack.first, pack.second, *pack.carried["buffers"].values()]
        before = [value.clone() for value in state]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up in the first runs
            for _ in range(3):
                _step(program, pack, optimiser, self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = _step(program, pack, optimiser, self._inputs)
        for value, kept in zip(state, before, strict=True):
            value.copy_(kept)

    def replay(self, inputs: _StepInputs) -> Tensor:
        """Do one outer step with new inputs."""
        for static, new in zip(self._inputs.tensors(), inputs.tensors(), strict=True):
            static.copy_(new)
        self._graph.replay()
        return self._losses.clone()


def training_task(task: Task, traits: Traits) -> Task:
    """Return the task whose episodes a learner is meta-trained on."""
    return task if traits.ways is None else cast(Task, replace(cast(Any, task), ways=traits.ways))


def meta_of(checkpoint: Checkpoint, fresh: Meta) -> Meta:
    """Return a checkpoint's meta-parameters; those that it lacks are fresh.

    Constants are the rule's own. Its neighbours in a mixed pack lend a rule numbers that it does
    not use, and longer lists of learned ones: these are cut or padded.
    """
    parts: dict[str, Tensors] = {"constants": fresh["constants"]}
    for part in ("params", "learned", "buffers"):
        parts[part] = {
            name: _fitted(checkpoint.get(f"{part}/{name}"), value)
            for name, value in fresh[part].items()
        }
    return {part: parts[part] for part in (*TRAINED, *CARRIED)}


def _moment_of(checkpoint: Checkpoint, moment: str, meta: Meta) -> Meta:
    return {
        part: {
            name: _fitted(checkpoint.get(f"{moment}/{part}/{name}"), torch.zeros_like(value))
            for name, value in meta[part].items()
        }
        for part in TRAINED
    }


def _fitted(kept: Tensor | None, fresh: Tensor) -> Tensor:
    if kept is None or kept.shape == fresh.shape:
        return fresh if kept is None else kept
    if kept.dim() != 1 or fresh.dim() != 1:
        return fresh
    shared = min(len(kept), len(fresh))
    return torch.cat([kept[:shared].to(fresh), fresh[shared:]])
