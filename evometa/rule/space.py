"""What gradient rules may be proposed, and the published ones among them."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from evometa.errors import SpaceError
from evometa.rule.genes import AFFINE, ORDERS, RATES
from evometa.rule.gradient import DESCENT
from evometa.rule.known import KNOWN
from evometa.rule.operations import LEARNED, OPERATIONS
from evometa.rule.outer import SCHEDULES
from evometa.space import Choice, Float, Int, Primitive, Space, Struct, Tree

_MAML: dict[str, Any] = {
    "steps": 1,
    "rate": 0.01,
    "order": 2,
    "rates": "fixed",
    "adapts": "all",
    "multi_step": 0.0,
    "anneal": 0.0,
    "affine": "shared",
    "outer": {"adam": {"rate": 1e-3, "schedule": "constant"}},
    "update": [*DESCENT],
    "loss": "task",
    "clip": 0.0,
}
# Adam without its first average, by which Reptile's batches were learned
_SCALED = ["div", "gradient", "add", "sqrt", "unbiased", 0.999, "square", "gradient", 1e-8]
RULES = MappingProxyType(
    {
        "maml": _MAML,
        "fomaml": {**_MAML, "order": 1},
        "anil": {**_MAML, "adapts": "head"},
        "boil": {**_MAML, "adapts": "body"},
        "reptile": {
            **_MAML,
            "steps": 5,
            "rate": 0.02,
            "order": 0,
            "outer": {"sgd": {"rate": 1.0, "schedule": "linear"}},
        },
        "reptile-batches": {
            **_MAML,
            "steps": 5,
            "rate": 0.001,
            "order": 0,
            "outer": {"sgd": {"rate": 1.0, "schedule": "linear"}},
            "update": ["mul", "rate", *_SCALED],
            "support": {"batches": 10},
        },
        "meta-sgd": {**_MAML, "rates": "parameter"},
        "maml++": {
            **_MAML,
            "steps": 5,
            "rates": "layer-step",
            "multi_step": 0.1,
            "anneal": 0.5,
            "affine": "step",
            "outer": {"adam": {"rate": 1e-3, "schedule": "cosine"}},
        },
        "lslr": {**_MAML, "rates": "layer-step"},
        "proto-maml": {**_MAML, "steps": 5, "rate": 0.1, "head": "prototypes"},
        "fo-proto-maml": {**_MAML, "steps": 5, "rate": 0.1, "head": "prototypes", "order": 1},
        "meta-curvature": {**_MAML, "update": ["mul", "rate", "curved"]},
        "imaml": {
            **_MAML,
            "steps": 10,
            "rate": 0.1,
            "derivative": {"implicit": {"strength": 1.0, "solves": 5}},
        },
        "cavia": {**_MAML, "rate": 1.0, "adapts": {"context": 5}},
        "alfa": {
            **_MAML,
            "steps": 5,
            "rates": "layer-step",
            "update": [
                *["add", "mul", "mul", "rate", "pace", "gradient"],
                *["mul", "fade", "parameter"],
            ],
        },
        "meta-lstm": {
            **_MAML,
            "steps": 8,
            "order": 1,
            "update": ["add", "mul", "input", "gradient", "mul", "forget", "parameter"],
        },
        **{name: {**_MAML, "steps": 5, "update": tokens} for name, tokens in KNOWN.items()},
    }
)


def outer_space() -> Choice:
    """Return the space of outer loops: Adam, or gradient descent, each with rate and schedule."""
    schedule = Choice(*SCHEDULES)
    return Choice(
        adam=Struct(rate=Float(1e-4, 1e-2, log=True), schedule=schedule),
        sgd=Struct(rate=Float(0.01, 1.0, log=True), schedule=schedule),
    )


def rule_space(
    *,
    steps: Space | None = None,
    rate: Space | None = None,
    order: Space | None = None,
    rates: Space | None = None,
    adapts: Space | None = None,
    multi_step: Space | None = None,
    anneal: Space | None = None,
    affine: Space | None = None,
    outer: Space | None = None,
    update: Space | None = None,
    loss: Space | None = None,
    clip: Space | None = None,
    support: Space | None = None,
    head: Space | None = None,
    derivative: Space | None = None,
) -> Struct:
    """Return the space of gradient rules; every argument narrows or widens one gene.

    All presets of the gradient family are points of it, those with genes that it has only where
    they are asked for among them. `Choice(value)` fixes a gene.

    Args:
        steps: inner steps; default `Int(1, 5)`.
        rate: (initial) rate; default `Float(0.001, 1.0, log=True)`.
        order: order of derivative; default `Choice(0, 1, 2)`.
        rates: which rates are learned; default all of `fixed, shared, layer, layer-step,
            parameter`; `tensor` and `tensor-step` are there besides.
        adapts: which parameters adapt; default all of `all, head, body`. For all ways
            `Choice("all", "head", "body", "norm", "channels", context=Int(1, 9), film=Int(1, 9))`.
        multi_step: share of meta-training in which all steps' losses count; default
            `Choice(0.0, 0.1)`.
        anneal: share of meta-training that is first order; default `Choice(0.0, 0.5)`.
        affine: batch-norm parameters `shared` by the steps or one set a `step`; default both.
        outer: the outer loop; default `outer_space()`.
        update: what is subtracted at each step; default plain gradient descent alone.
            `update_space()` for whatever can be written with the operations of rules.
        loss: loss of the inner loop; default the task's own alone. `Choice("task", "squared",
            "huber")` for all.
        clip: longest gradient, 0 for no limit; default no limit alone.
        support: how the support is taken; default all of it at each step, without a gene for it.
            For all ways `Choice("all", batches=Int(1, 16), stream=Int(1, 16))`.
        head: where the last layer comes from; default the network, without a gene for it.
            `Choice("network", "prototypes")` for both.
        derivative: how the outer gradient passes the steps; default through them, without a gene
            for it. For both `Choice("unrolled", implicit=Struct(strength=Float(0.1, 10, log=True),
            solves=Int(1, 10)))`, with which nothing of the steps may be learned.

    Returns:
        A `Struct` whose genomes `make_rule` understands.
    """
    asked = {"support": support, "head": head, "derivative": derivative}
    fields: dict[str, Any] = {name: gene for name, gene in asked.items() if gene is not None}
    return Struct(
        steps=Int(1, 5) if steps is None else steps,
        rate=Float(0.001, 1.0, log=True) if rate is None else rate,
        order=Choice(*ORDERS) if order is None else order,
        rates=Choice(*RATES) if rates is None else rates,
        adapts=Choice("all", "head", "body") if adapts is None else adapts,
        multi_step=Choice(0.0, 0.1) if multi_step is None else multi_step,
        anneal=Choice(0.0, 0.5) if anneal is None else anneal,
        affine=Choice(*AFFINE) if affine is None else affine,
        outer=outer_space() if outer is None else outer,
        update=Choice([*DESCENT]) if update is None else update,
        loss=Choice("task") if loss is None else loss,
        clip=Choice(0.0) if clip is None else clip,
        **fields,
    )


def update_space(
    *,
    own: Sequence[Primitive] = (),
    leave_out: Sequence[str] = (),
    learned: Sequence[str] = (),
    size: int = 24,
    depth: int = 8,
) -> Tree:
    """Return the space of updates: typed expressions that see the gradient.

    Args:
        own: primitives of one's own, with their functions.
        leave_out: names of `OPERATIONS` that may not be used.
        learned: names of `LEARNED` that may be used besides; with `curved` among them, which is a
            gradient, an update need not use `gradient`.
        size: most nodes.
        depth: most levels below the root.

    Raises:
        SpaceError: if a name is unknown or taken.
    """
    for name in leave_out:
        if name not in OPERATIONS:
            raise SpaceError(f"an operation must be one of {', '.join(OPERATIONS)}, got {name!r}")
    for name in learned:
        if name not in LEARNED:
            raise SpaceError(f"`learned` must be of {', '.join(LEARNED)}, got {name!r}")
    more = [LEARNED[name].primitive for name in learned]
    built_in = [op.primitive for op in OPERATIONS.values() if op.name not in leave_out]
    required = [] if "curved" in learned else ["gradient"]
    return Tree([*built_in, *more, *own], size=size, depth=depth, required=required)
