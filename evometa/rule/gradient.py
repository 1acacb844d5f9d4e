"""Rules that adapt by gradients: the MAML family, and whatever an update can express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from evometa.rule.genes import ADAPTS, BY_TENSOR, CONTEXTS, check_genes
from evometa.rule.operations import LEARNED, TINY, Operation, operations
from evometa.rule.outer import DEFAULT_OUTER, Outer, make_outer
from evometa.rule.protocol import Tensors
from evometa.rule.senses import SENSES, Happening, Sense
from evometa.rule.state import Flat, Memory, State, layer_of, numbers
from evometa.rule.update import Numbers, Update
from evometa.space import Primitive

DESCENT = ("mul", "rate", "gradient")
"""The update of plain gradient descent."""
EXTRAS = {"gain": 1.0, "shift": 0.0}
"""What is learned for each weight where the update uses it, from these values."""

CONSTANTS = "update:constants"
"""Name of an update's constants among the learned and the fixed numbers."""

_KINDS = {
    "layer": "layer",
    "layer-step": "layer",
    "parameter": "element",
    "tensor": "element",
    "tensor-step": "element",
}


@dataclass(frozen=True)
class GradientRule:
    """`parameter <- parameter - update`, on some of the parameters, for a number of steps.

    Attributes:
        steps: number of inner steps.
        rate: the rate, or the initial value of all learned rates.
        order: 2 for MAML (Finn et al., 2017), 1 for its first-order approximation, 0 for Reptile
            (Nichol et al., 2018), which adapts to support and query set together and moves the
            initial parameters towards the adapted ones.
        rates: what is learned: `"fixed"` (nothing), `"shared"` (one rate), `"layer"` (one a layer),
            `"layer-step"` (one a layer and step: MAML++, Antoniou et al., 2019), `"parameter"` (one
            a weight: Meta-SGD, Li et al., 2017); `"tensor"` and `"tensor-step"` as `"layer"` and
            `"layer-step"`, but weights and biases have their own, as in the code of MAML++.
        adapts: `"all"` parameters, the `"head"` (ANIL, Raghu et al., 2020), the `"body"` (BOIL, Oh
            et al., 2021), or the `"norm"` parameters and biases, which have one axis. The head is
            the last layer that has parameters. A text of 0 and 1 says for each layer whether it
            adapts, and ends with the head; its first digit counts for all earlier layers.
            No weight adapts with `{"context": n}`, n numbers from 0 that are given to the first
            layer as further inputs (CAVIA, Zintgraf et al., 2019); `{"film": n}`, n numbers that
            scale and shift each channel of all layers but the last; and `"channels"`, these scales
            and shifts themselves.
        multi_step: MAML++: share of meta-training in which the query losses after all steps count,
            with weights that move to the last step; 0 for the last one alone.
        anneal: MAML++: share of meta-training that is first order before `order` begins.
        affine: `"step"` gives batch norm its own learned weights and biases at each step (MAML++);
            they do not adapt.
        outer: how the outer loop trains.
        update: what is subtracted at each step: tokens of an expression; see `Update`.
        loss: of the inner loop: the `"task"`'s own, or `"squared"` or `"huber"`, on one-hot targets
            for classes.
        clip: longest gradient, all adapting parameters together; 0 for no limit.
        support: how the support set is taken: `"all"` of it at each step; `{"batches": n}`, parts
            of about `n` examples in turn, each every so many-th example, so that examples sorted
            by class are mixed; `{"stream": n}`, `n` examples after the other in their order, with
            `steps` updates on each.
        head: `"network"`, the network's own; `"prototypes"`, a linear layer on its outputs that
            starts from the class means of the support set (Proto-MAML, Triantafillou et al.,
            2020). It is the last layer; what is learned of its weights is the same for all classes.
        derivative: how the outer loop's gradient passes the steps: `"unrolled"`, through all of
            them; `{"implicit": {"strength": s, "solves": n}}`, as that of a minimum of the loss
            with a pull of strength `s` to the start, by `n` iterations of conjugate gradients
            (iMAML, Rajeswaran et al., 2019), with the memory of one step. Nothing of the steps is
            learned then.
        table: the operations that the update may use.

    Raises:
        ValueError: if an argument is none of these.
    """

    steps: int
    rate: float
    order: int = 2
    rates: str = "fixed"
    adapts: Any = "all"
    multi_step: float = 0.0
    anneal: float = 0.0
    affine: str = "shared"
    outer: Outer = DEFAULT_OUTER
    update: Sequence[Any] = DESCENT
    loss: str = "task"
    clip: float = 0.0
    support: Any = "all"
    head: str = "network"
    derivative: Any = "unrolled"
    table: Mapping[str, Operation] = field(default_factory=operations)
    expression: Update = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_genes(self)
        kind = _KINDS.get(self.rates, "scalar")
        object.__setattr__(self, "update", tuple(self.update))
        object.__setattr__(self, "expression", Update.of(self.update, self.table, kind))

    @property
    def context(self) -> tuple[int, bool] | None:
        """Numbers of a context, 0 where they are channels' own, and whether it scales layers."""
        if self.adapts == "channels":
            return 0, True
        if not isinstance(self.adapts, Mapping) or len(self.adapts) != 1:
            return None
        ((way, size),) = self.adapts.items()
        return (size, way == "film") if way in CONTEXTS and type(size) is int and size > 0 else None

    @property
    def implicit(self) -> tuple[float, int] | None:
        """Strength of the pull to the start and iterations of the solver; None where unrolled."""
        genes = self.derivative.get("implicit") if isinstance(self.derivative, Mapping) else None
        if not isinstance(genes, Mapping) or set(genes) != {"strength", "solves"}:
            return None
        return genes["strength"], genes["solves"]

    @property
    def streams(self) -> bool:
        """Whether the support is taken in its order, one slice after the other."""
        return self.support != "all" and "stream" in self.support

    def slices(self, examples: int, length: int | None = None) -> Iterator[slice | None]:
        """Yield for each update which of the support's examples it sees; None for all.

        Args:
            examples: of the support.
            length: updates; default as many as there are.
        """
        if self.support == "all":
            yield from [None] * (self.steps if length is None else length)
            return
        ((way, size),) = self.support.items()
        parts = -(-examples // size)
        count = self.steps * (parts if way == "stream" else 1) if length is None else length
        for step in range(count):
            if way == "batches":
                yield slice(step % parts, None, parts)
            elif step // self.steps < parts:
                start = step // self.steps * size
                yield slice(start, start + size)

    def place(self, step: int) -> int:
        """Return the place of an update among a rule's own steps, whose last one goes on."""
        return step % self.steps if self.streams else min(step, self.steps - 1)

    @property
    def frame(self) -> str:
        """Text that is equal for rules which differ in their updates and in numbers only."""
        taken = "" if self.support == "all" else f" support={self.support}"
        taken += "".join(f" {sense.name}" for sense in self.senses)
        taken += "" if self.implicit is None else f" implicit={self.implicit[1]}"
        taken += "" if self.head == "network" else f" head={self.head}"
        return (
            f"steps={self.steps} order={self.order} rates={self.rates} adapts={self.adapts} "
            f"multi_step={self.multi_step} anneal={self.anneal} affine={self.affine} "
            f"outer={self.outer.structure} loss={self.loss} clip={self.clip > 0}{taken}"
        )

    @property
    def structure(self) -> str:
        """Text that is equal for rules which differ only in numbers."""
        return f"{self.frame} update={self.expression.structure}"

    @property
    def alone(self) -> GradientRule:
        """The rule itself: it is not mixed with others."""
        return self

    def order_at(self, progress: float) -> int:
        """Return the order of derivative at a point of meta-training."""
        return min(self.order, 1) if progress < self.anneal else self.order

    def adapting(self, params: Tensors) -> list[str]:
        """Choose which of the parameters, in the network's order, adapt.

        Raises:
            ValueError: if none is left, as with `"body"` on a network of one layer.
        """
        if self.context is not None:
            return [name for name in params if name.startswith("context:")]
        layers = list(dict.fromkeys(layer_of(name) for name in params))
        mask = dict.fromkeys(layers, True)
        if self.adapts in ("head", "body"):
            mask = {layer: (layer == layers[-1]) == (self.adapts == "head") for layer in layers}
        elif self.adapts not in ADAPTS:
            digits = self.adapts.rjust(len(layers), self.adapts[0])[-len(layers) :]
            mask = {layer: digit == "1" for layer, digit in zip(layers, digits, strict=True)}
        chosen = [
            name
            for name, value in params.items()
            if mask[layer_of(name)] and (self.adapts != "norm" or value.dim() <= 1)
        ]
        if not chosen:
            raise ValueError(
                f"the rule adapts {self.adapts!r}, but the network has no such parameters "
                f"(it has {list(params)}); use adapts='all'"
            )
        return chosen

    def learned(self, params: Tensors, generator: torch.Generator | None = None) -> Tensors:
        """Return the initial learned numbers, named as `init` reads them."""
        some = next(iter(params.values()))
        found: Tensors = {}
        if self.rates == "shared":
            found = {"rate": some.new_tensor(self.rate)}
        elif self.rates == "layer":
            found = {layer_of(name): some.new_tensor(self.rate) for name in params}
        elif self.rates == "layer-step":
            found = {layer_of(name): some.new_full((self.steps,), self.rate) for name in params}
        elif self.rates in BY_TENSOR:
            size = (self.steps,) if self.rates == "tensor-step" else ()
            found = {name: some.new_full(size, self.rate) for name in params}
        elif self.rates == "parameter":
            found = {name: torch.full_like(value, self.rate) for name, value in params.items()}
        for extra in self.extras:
            for name, value in params.items():
                found[f"{extra}:{name}"] = torch.full_like(value, EXTRAS[extra])
        generator = generator or torch.Generator().manual_seed(0)
        for sense in self.senses:
            found |= sense.learned(params, self.steps, generator)
        if self.expression.learned:
            found[CONSTANTS] = some.new_tensor(self.expression.learned)
        return found

    def constants(self, params: Tensors) -> Tensors:
        """Return the fixed numbers: the rate, the update's constants, the limit of gradients."""
        some = next(iter(params.values()))
        found = {"rate": some.new_tensor(self.rate)} if self.rates == "fixed" else {}
        if self.expression.fixed:
            found[CONSTANTS] = some.new_tensor(self.expression.fixed)
        if self.clip:
            found["clip"] = some.new_tensor(self.clip)
        if self.implicit is not None:
            found["strength"] = some.new_tensor(self.implicit[0])
        return found

    @property
    def extras(self) -> list[str]:
        """Which of the `EXTRAS` the update uses."""
        return [name for name in EXTRAS if name in self.update]

    @property
    def by_weight(self) -> bool:
        """Whether something is learned for each weight, or for each row of weights."""
        return self.rates == "parameter" or bool(self.extras) or "curved" in self.update

    @property
    def senses(self) -> list[Sense]:
        """What the update sees that is learned as a whole."""
        used = {name for name in LEARNED if name in self.update}
        used = {name for name in used if self.table[name] is LEARNED[name]}
        return [sense for sense in SENSES if not used.isdisjoint(sense.tokens)]

    def init(self, params: Tensors, learned: Tensors, constants: Tensors) -> State:
        """Return what the rule carries from step to step."""
        if self.update == DESCENT and not self.clip and self.implicit is None:
            return State(self._rates(params, learned, constants), {}, None, Memory())
        return self.carried(params, learned, constants)

    def carried(self, params: Tensors, learned: Tensors, constants: Tensors) -> State:
        """Return what an expression needs from step to step, whatever the expression."""
        rates = self._rates(params, learned, constants)
        start = Flat.of(params)
        none = start.vector.new_zeros(0)
        numbers: Tensors = {
            "fixed": constants.get(CONSTANTS, none),
            "learned": learned.get(CONSTANTS, none),
            **{name: constants[name] for name in ("clip", "strength") if name in constants},
        }
        for extra in EXTRAS:
            if f"{extra}:{next(iter(params))}" in learned:
                numbers[extra] = start.flatten({n: learned[f"{extra}:{n}"] for n in params})
        for sense in self.senses:
            numbers |= {n: v for n, v in learned.items() if n.split(":")[0] == sense.name}
        averages = (torch.zeros_like(start.vector),) * self.expression.memories
        kept = tuple(sense.start(start) for sense in self.senses)
        return State(rates, numbers, start, Memory(averages, kept))

    def apply(
        self, grads: Tensors, loss: Tensor, state: State, params: Tensors, step: int
    ) -> tuple[Tensors, State]:
        """Return the parameters after one step, and the state."""
        start = state.start
        if start is None:  # gradient descent is one operation for each tensor
            return {
                name: torch.addcmul(value, self._at(state.rates[name], step), grads[name], value=-1)
                for name, value in params.items()
            }, state
        seen, kept = self.sees(grads, loss, state, params, step)
        numbers = Numbers(state.numbers["fixed"], state.numbers["learned"])
        averages = state.memory.averages
        move, averages = self.expression(seen, numbers, averages, start.layers, step + 1)
        new = start.unflatten(seen["parameter"] - move)
        return new, state._replace(memory=Memory(tuple(averages), kept))

    def sees(
        self, grads: Tensors, loss: Tensor, state: State, params: Tensors, step: int
    ) -> tuple[Tensors, tuple[Tensors, ...]]:
        """Return what an update sees at a step, by name, and what the senses keep."""
        start = state.start
        assert start is not None
        gradient, parameter = start.flatten(grads), start.flatten(params)
        if "strength" in state.numbers:
            gradient = gradient + state.numbers["strength"] * (parameter - start.vector)
        if "clip" in state.numbers:
            length = (gradient.square().sum() + TINY**2).sqrt()
            gradient = gradient * (state.numbers["clip"] / length).clamp(max=1.0)
        now = Happening(gradient, parameter, loss, self.place(step), start)
        told = [
            sense(now, state.numbers, kept)
            for sense, kept in zip(self.senses, state.memory.kept, strict=True)
        ]
        seen = {
            "gradient": gradient,
            "parameter": parameter,
            "initial": start.vector,
            "rate": self._rate(state.rates, start, step),
            "loss": loss.unsqueeze(-1),
            "progress": numbers([self._within(step) / self.steps], loss),
            **{name: state.numbers[name] for name in EXTRAS if name in state.numbers},
            **start.known,
        }
        for given, _ in told:
            seen |= given
        return seen, tuple(after for _, after in told)

    def _rates(self, params: Tensors, learned: Tensors, constants: Tensors) -> Tensors:
        if self.rates == "fixed":
            return dict.fromkeys(params, constants["rate"])
        if self.rates == "shared":
            return dict.fromkeys(params, learned["rate"])
        if self.rates in ("parameter", *BY_TENSOR):
            return {name: learned[name] for name in params}
        return {name: learned[layer_of(name)] for name in params}

    def _at(self, rate: Tensor, step: int) -> Tensor:
        return rate[self.place(step)] if self.rates.endswith("-step") else rate

    def _within(self, step: int) -> int:
        return step % self.steps if self.streams else step

    def _rate(self, rates: Tensors, start: Flat, step: int) -> Tensor:
        """Return the rates of a step: one, one a layer, or one a weight."""
        if self.rates in ("parameter", *BY_TENSOR):
            return start.flatten({name: self._at(rate, step) for name, rate in rates.items()})
        if self.rates in ("fixed", "shared"):
            return next(iter(rates.values())).unsqueeze(-1)
        by_layer = {layer_of(name): self._at(rates[name], step) for name in start.shapes}
        return torch.stack(list(by_layer.values()))


def make_rule(genome: Mapping[str, Any], own: Sequence[Primitive] = ()) -> GradientRule:
    """Turn a rule genome into a rule.

    Args:
        genome: genes by name; those that are missing take their defaults.
        own: primitives of one's own that the update may use.

    Raises:
        ValueError: if a gene has no such value.
        TypeError: if a gene is unknown or missing.
    """
    known = {each.name for each in fields(GradientRule) if each.init} - {"table"}
    for name in genome:
        if name not in known:
            raise TypeError(f"the genes of a rule are {', '.join(sorted(known))}, got {name!r}")
    outer = make_outer(genome["outer"]) if "outer" in genome else DEFAULT_OUTER
    return GradientRule(**{**genome, "outer": outer, "table": operations(own)})
