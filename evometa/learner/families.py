"""From the `rule` of a genome to the learner it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from evometa.learner.gradient import GradientLearner
from evometa.learner.protocol import Learner
from evometa.learner.prototypes import make_prototypes
from evometa.network import Network
from evometa.rule import make_rule


def make_gradient(
    genome: Mapping[str, Any], network: Network, task: Any, norm: str
) -> GradientLearner:
    """Turn a genome of `rule_space` into a learner."""
    return GradientLearner(network, make_rule(genome), task.loss, norm)


Family = Callable[[Mapping[str, Any], Network, Any, str], Learner]
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {"gradient": make_gradient, "prototypes": make_prototypes}
)


def make_learner(genome: Mapping[str, Any], network: Network, task: Any, norm: str) -> Learner:
    """Turn a rule genome into a learner.

    Args:
        genome: `{family: genes}`, or the genes of a gradient rule alone.
        network: what learns.
        task: gives the loss, and the shape of an episode.
        norm: batch-norm protocol.

    Raises:
        ValueError: if the rule does not fit the task, or a gene has no such value.
        TypeError: if a gene is unknown or missing.
    """
    name = next(iter(genome)) if len(genome) == 1 else "gradient"
    genes = genome.get(name, genome)
    if name not in FAMILIES:
        raise ValueError(f"a learner must be one of {', '.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name](genes, network, task, norm)
