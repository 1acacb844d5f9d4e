"""From the `rule` of a genome to the learner it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from evometa.learner.gradient import GradientLearner
from evometa.learner.protocol import Learner
from evometa.learner.prototypes import make_prototypes
from evometa.network import Network
from evometa.records import canonical_json
from evometa.rule import check_update, fingerprint, make_rule, simplified
from evometa.space import Primitive


def make_gradient(
    genome: Mapping[str, Any], network: Network, task: Any, norm: str, own: Sequence[Primitive]
) -> GradientLearner:
    """Turn a genome of `rule_space` into a learner.

    Raises:
        ValueError: if the rule cannot learn.
    """
    rule = make_rule(genome, own)
    check_update(rule)
    return GradientLearner(network, rule, task.loss, norm)


Family = Callable[[Mapping[str, Any], Network, Any, str, Sequence[Primitive]], Learner]
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {"gradient": make_gradient, "prototypes": make_prototypes}
)


def behaviour(genome: Mapping[str, Any], own: Sequence[Primitive] = ()) -> str:
    """Return a text that is equal for rule genomes which stand for the same learner.

    Args:
        genome: as `make_learner` takes it.
        own: primitives of one's own that updates may use.

    Raises:
        ValueError, TypeError: if the genome stands for none.
    """
    name = next(iter(genome)) if len(genome) == 1 else "gradient"
    genes = genome.get(name, genome)
    return fingerprint(make_rule(genes, own)) if name == "gradient" else canonical_json(genome)


def rule_size(genome: Mapping[str, Any], own: Sequence[Primitive] = ()) -> int:
    """Return the number of nodes of a rule's update, simplified; 0 for learners without one."""
    update = genome.get("gradient", genome).get("update")
    return 0 if update is None else len(simplified(update, own))


def make_learner(
    genome: Mapping[str, Any],
    network: Network,
    task: Any,
    norm: str,
    own: Sequence[Primitive] = (),
) -> Learner:
    """Turn a rule genome into a learner.

    Args:
        genome: `{family: genes}`, or the genes of a gradient rule alone.
        network: what learns.
        task: gives the loss, and the shape of an episode.
        norm: batch-norm protocol.
        own: primitives of one's own that updates may use.

    Raises:
        ValueError: if the rule does not fit the task, or a gene has no such value.
        TypeError: if a gene is unknown or missing.
    """
    if not isinstance(genome, Mapping) or not genome:
        raise ValueError(f"a rule must be a dict of genes, got {genome!r}")
    name = next(iter(genome)) if len(genome) == 1 else "gradient"
    genes = genome.get(name, genome)
    if name not in FAMILIES:
        raise ValueError(f"a learner must be one of {', '.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name](genes, network, task, norm, own)
