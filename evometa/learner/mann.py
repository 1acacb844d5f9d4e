"""Memory-augmented networks with least-recently-used access (MANN; Santoro et al., 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded, shape_of
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.pairs import one_of, whole_numbers
from evometa.learner.protocol import Tensors
from evometa.network import cell_weights, drawn, lstm
from evometa.rule import outer_space
from evometa.space import Choice, Float, Int, Primitive, Space, Struct
from evometa.task.classes import class_count
from evometa.task.protocol import IGNORED, Side
from evometa.task.sampler import bounds_of

DECAY = 0.95  # of the usage, as published
EMPTY = 1e-6  # what stands in a memory that nothing was written to
TINY = 1e-6  # keeps the cosine's denominator above 0
TARGETS = ("task", "sequence")


class Memory(NamedTuple):
    """What is known after some examples; with an axis of queries before the others, or without.

    Attributes:
        hidden: the controller's output, shape `(width,)`.
        cell: its state, likewise.
        rows: the memory, shape `(rows, size)`.
        weights: where the heads have read last, shape `(heads, rows)`.
        usage: how much each row was used of late, shape `(rows,)`.
        read: what they have read there, shape `(heads * size,)`.
        label: of the last example, as a vector, shape `(labels,)`.
    """

    hidden: Tensor
    cell: Tensor
    rows: Tensor
    weights: Tensor
    usage: Tensor
    read: Tensor
    label: Tensor


class Walked(NamedTuple):
    """A memory after a support set.

    Attributes:
        memory: the memory.
        guesses: logits of each example before its label was seen, shape `(examples, ways)`.
        loss: the mean cross-entropy of these.
        shown: how many examples are no padding.
    """

    memory: Memory
    guesses: Tensor
    loss: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Mann(Head):
    """Reads the support set as a sequence, each example with the label of the one before.

    An LSTM with a memory beside it: at each step every head writes to a row that is between the one
    it has read last and the least recently used one, which is erased first, and reads by the cosine
    to a key. Which row that is is a choice that has no derivative. Queries come one at a time, each
    to the memory as the support set has left it. The order of the support set matters.

    Attributes:
        features: of an example.
        labels: classes that it can tell apart.
        width: of the controller.
        rows: of the memory.
        size: of a row.
        heads: that read and write.
        strength: of the cosines in the softmax; 1 as published.
        target: what the outer loop makes small: `"task"`, the loss of the queries; `"sequence"`,
            the mean cross-entropy of all examples in their turn, the support's as published.

    Raises:
        ValueError: if an argument has no such value.
    """

    features: int
    labels: int
    width: int = 200
    rows: int = 128
    size: int = 40
    heads: int = 4
    strength: float = 1.0
    target: str = "sequence"

    def __post_init__(self) -> None:
        one_of("target", self.target, TARGETS)
        whole_numbers(self)
        if self.rows <= self.heads:
            raise ValueError(f"`rows > heads` must hold, got {self.rows} and {self.heads}")
        if not self.strength > 0:
            raise ValueError(f"`strength` must be above 0, got {self.strength!r}")

    @property
    def structure(self) -> str:
        """What it is, without its numbers."""
        sizes = f"{self.width} {self.rows}x{self.size} {self.heads} heads"
        return f"mann {self.labels} {sizes} {self.target}"

    @property
    def most(self) -> int:
        """Classes that it can tell apart."""
        return self.labels

    @property
    def ordered(self) -> bool:
        """Whether it reads the support set in turn."""
        return True

    def init(self, like: Tensor, generator: torch.Generator) -> Own:
        """Return the weights of the controller and of what it says, and the strength."""
        width, read = self.width, self.heads * self.size
        inputs = self.features + self.labels
        cell = cell_weights(4, inputs, width + read, width, like, generator)
        params = {f"cell.{name}": value for name, value in cell.items()}
        for name, start, end in (
            ("key", width, read),
            ("add", width, read),
            ("gate", width, self.heads),
            ("out", width + read, self.labels),
        ):
            std = (2 / (start + end)) ** 0.5
            params[f"{name}.weight"] = drawn((start, end), std, like, generator)
            params[f"{name}.bias"] = like.new_zeros(end)
        return Own(params, {}, {"strength": like.new_tensor(self.strength)})

    def fit(self, own: Tensors, shown: Shown) -> Walked:
        """Walk through the support set."""
        memory, guesses = self._begin(shown.features), []
        labels = F.pad(shown.one_hot, (0, self.labels - shown.one_hot.shape[1]))
        for features, label, real in zip(shown.features, labels, shown.real, strict=True):
            outputs, after = self.step(own, features, memory)
            guesses.append(outputs)
            after = after._replace(label=label)
            memory = Memory(*(torch.where(real, *each) for each in zip(after, memory, strict=True)))
        logits = torch.stack(guesses)[:, : shown.one_hot.shape[1]]
        loss = F.cross_entropy(logits, shown.targets, ignore_index=IGNORED)
        return Walked(memory, logits, loss, shown.real.sum())

    def score(self, own: Tensors, state: Walked, features: Tensor) -> Tensor:
        """Return logits of shape `(queries, ways)`."""
        count = features.shape[0]
        each = Memory(*(part.expand(count, *part.shape) for part in state.memory))
        return self.step(own, features, each)[0][:, : state.guesses.shape[1]]

    def objective(self, own: Tensors, state: Walked, asked: Asked, loss: Tensor) -> Tensor:
        """Return the loss of the queries, or the mean over these and the support set."""
        if self.target == "task":
            return loss
        asked_for = (asked.targets != IGNORED).sum()
        return (state.shown * state.loss + asked_for * loss) / (state.shown + asked_for)

    def step(self, own: Tensors, features: Tensor, before: Memory) -> tuple[Tensor, Memory]:
        """See an example; return logits of all labels, and the memory, its label still the last.

        Args:
            own: the weights.
            features: shape `(features,)`, or with an axis of queries before it, as the memory.
            before: the memory.
        """
        cell = {part: own[f"cell.{part}"] for part in ("inputs", "memory", "bias")}
        given = torch.cat([features, before.label], -1)
        known = torch.cat([before.hidden, before.read], -1)
        hidden, inner = lstm(cell, given, known, before.cell)

        def said(name: str) -> Tensor:
            return hidden @ own[f"{name}.weight"] + own[f"{name}.bias"]

        each = (*hidden.shape[:-1], self.heads, self.size)
        keys, adds = said("key").tanh().view(each), said("add").tanh().view(each)
        gate = said("gate").sigmoid().unsqueeze(-1)
        least = before.usage.detach().topk(self.heads, largest=False).indices
        places = torch.arange(self.rows, device=least.device)
        unused = (least.unsqueeze(-1) == places).to(features.dtype)  # (heads, rows)
        writes = gate * before.weights + (1 - gate) * unused
        kept = before.rows * (1 - unused[..., 0, :]).unsqueeze(-1)
        rows = kept + writes.mT @ adds
        lengths = keys.square().sum(-1, keepdim=True) * rows.square().sum(-1).unsqueeze(-2)
        likeness = keys @ rows.mT / (lengths + TINY).sqrt()
        weights = (own["strength"] * likeness).softmax(-1)
        usage = DECAY * before.usage + weights.sum(-2) + writes.sum(-2)
        read = (weights @ rows).flatten(-2)
        outputs = torch.cat([hidden, read], -1) @ own["out.weight"] + own["out.bias"]
        return outputs, Memory(hidden, inner, rows, weights, usage, read, before.label)

    def _begin(self, like: Tensor) -> Memory:
        """Return an empty memory, whose rows are to be used in their order."""
        usage = torch.linspace(0, EMPTY, self.rows, dtype=like.dtype, device=like.device)
        return Memory(
            like.new_zeros(self.width),
            like.new_zeros(self.width),
            like.new_full((self.rows, self.size), EMPTY),
            like.new_zeros(self.heads, self.rows),
            usage,
            like.new_zeros(self.heads * self.size),
            like.new_zeros(self.labels),
        )


def presentations(state: Walked, side: Side) -> list[Tensor]:
    """Return how often a class was told when one of its examples came for the k-th time.

    That is the published measure of a memory: one sequence, each label seen after its example was
    guessed. The accuracy of an episode's queries is another one.

    Args:
        state: what `adapt` has found on one sequence, its `state`.
        side: the sequence, as it was learned.

    Returns:
        Accuracies of the first, second, ... presentation, scalars.
    """
    same = side.targets.unsqueeze(1) == side.targets
    times = same.tril(-1).sum(1)
    right = state.guesses.argmax(1) == side.targets
    real = side.targets != IGNORED
    found = []
    for time in range(int(times[real].max()) + 1):
        now = real & (times == time)
        found.append(right[now].double().mean())
    return found


def mann_space(
    *,
    width: Space | None = None,
    rows: Space | None = None,
    size: Space | None = None,
    heads: Space | None = None,
    strength: Space | None = None,
    target: Space | None = None,
    outer: Space | None = None,
) -> Struct:
    """Return the space of memory-augmented networks (Santoro et al., 2016).

    Args:
        width: of the controller; default `Choice(64, 128, 200)`.
        rows: of the memory; default `Choice(32, 64, 128)`.
        size: of a row; default `Choice(20, 40)`.
        heads: default `Int(1, 4)`.
        strength: of the cosines; default `Float(1, 20, log=True)`.
        target: default `Choice("task", "sequence")`.
        outer: the outer loop; default `outer_space()`.
    """
    return Struct(
        width=Choice(64, 128, 200) if width is None else width,
        rows=Choice(32, 64, 128) if rows is None else rows,
        size=Choice(20, 40) if size is None else size,
        heads=Int(1, 4) if heads is None else heads,
        strength=Float(1.0, 20.0, log=True) if strength is None else strength,
        target=Choice(*TARGETS) if target is None else target,
        outer=outer_space() if outer is None else outer,
    )


def _make(genes: Genes, setting: Setting) -> Embedded:
    """Turn a genome of `mann_space` into a learner; raises as `make_embedded` does."""
    what, ways = "memory-augmented networks", genes.get("ways")

    def head(**own: int) -> Mann:
        labels = max(class_count(setting.task) or 1, bounds_of(ways)[1] if ways else 1)
        return Mann(shape_of(setting, what).numel(), labels, **own)  # type: ignore[arg-type]

    return make_embedded(genes, setting, what, head)


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    del primitives
    rows, size, heads = genes["rows"], genes["size"], genes["heads"]
    return (
        f"y ← LSTM(f(x), y₋₁, r), r what {heads} heads read in {rows} rows of {size}, "
        "written to where it was read last or is least used"
    )


FAMILY = Family(
    name="mann",
    make=_make,
    space=mann_space,
    presets={
        "mann": {
            "width": 200,
            "rows": 128,
            "size": 40,
            "heads": 4,
            "strength": 1.0,
            "target": "sequence",
            "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
        }
    },
    optional=("ways",),
    formula=_formula,
)
