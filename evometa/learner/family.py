"""A way of learning as one value: all that anyone asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeAlias

from evometa.errors import StudyError
from evometa.learner.protocol import Learner
from evometa.network import Network
from evometa.records import canonical_json
from evometa.space import Primitive, Space

Genes: TypeAlias = Mapping[str, Any]
"""What a genome says of a way of learning: plain data by name."""


@dataclass(frozen=True)
class Setting:
    """What a learner is made for.

    Attributes:
        network: what learns.
        task: gives the loss, and what is to be known of its episodes.
        norm: batch-norm protocol: `"inductive"`, `"transductive"` or `"per-step"`.
        outputs: what the network returns for one support set, tensors on the meta device: shapes
            and types, `examples` first. None where it is not known.
        primitives: primitives of the user's own that expressions may use.
    """

    network: Network
    task: Any
    norm: str
    outputs: Any = None
    primitives: Sequence[Primitive] = ()


class Outline(NamedTuple):
    """A way of learning as a tree, to be read.

    Attributes:
        tree: label and branches of each node.
        shorter: the shortest formula that does the same; empty if there is no shorter one.
    """

    tree: tuple[str, Sequence[Any]]
    shorter: str = ""


@dataclass(frozen=True)
class Mixing:
    """How learners that differ in more than numbers can share a pack.

    Attributes:
        kin: text that is equal for those which can.
        together: such learners as learners of equal structure. Each can still be used alone, with
            the meta-parameters that it has learned in the pack.
    """

    kin: Callable[[Any], str]
    together: Callable[[Sequence[Any]], Sequence[Learner]]


def _text(genes: Genes, primitives: Sequence[Primitive] = ()) -> str:
    del primitives
    return canonical_json(genes)


def _nothing(genes: Genes, primitives: Sequence[Primitive] = ()) -> Any:
    del genes, primitives


def _as_it_is(genes: Genes, steps: int) -> Genes:
    del steps
    return genes


@dataclass(frozen=True)
class Family:
    """A way of learning.

    Attributes:
        name: what genomes call it: `{name: genes}`.
        make: makes a learner from genes; raises `ValueError` where they do not fit the setting,
            `TypeError` where a gene is unknown or missing.
        space: returns the space of its genes.
        presets: published points of that space by name.
        optional: genes that presets leave out, and may be given all the same.
        formula: how it learns, in one line; empty where the genes cannot be read.
        outline: the same as a tree; None where there is none.
        source: Python of it that needs torch alone, to be read; None where there is none.
        identity: text that is equal for genes which do the same.
        size: nodes of the expressions among the genes.
        capped: genes with at most so many inner steps.
        first_order: genes that need no second derivative; None where there are none.
        mixing: how learners of different structure share a pack; None where they cannot.
        advice: what to change where learning explodes.
        weight: how often `learner_space` draws it, beside the other families' 1.
    """

    name: str
    make: Callable[[Genes, Setting], Learner]
    space: Callable[[], Space]
    presets: Mapping[str, Genes] = field(default_factory=dict)
    optional: Sequence[str] = ()
    formula: Callable[[Genes, Sequence[Primitive]], str] = _text
    outline: Callable[[Genes, Sequence[Primitive]], Outline | None] = _nothing
    source: Callable[[Genes, Sequence[Primitive]], str | None] = _nothing
    identity: Callable[[Genes, Sequence[Primitive]], str] = _text
    size: Callable[[Genes, Sequence[Primitive]], int] = lambda genes, primitives: 0
    capped: Callable[[Genes, int], Genes] = _as_it_is
    first_order: Callable[[Genes], Genes] | None = None
    mixing: Mixing | None = None
    advice: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise StudyError(f"the name of a family must be an identifier, got {self.name!r}")
        optional = ("first_order", "mixing")
        verbs = [each.name for each in fields(self) if "Callable" in str(each.type)]
        for verb in verbs:
            value = getattr(self, verb)
            if not callable(value) and not (value is None and verb in optional):
                raise StudyError(
                    f"`{verb}` of the family {self.name!r} must be a function, got {value!r}"
                )
