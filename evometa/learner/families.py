"""All families by name, and from the `rule` of a genome to its family."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from evometa.errors import SpaceError, StudyError
from evometa.learner.family import Family, Genes, Setting
from evometa.learner.protocol import Learner
from evometa.space import Choice

Families = Mapping[str, Family]

FILES = (
    "gradient_family",
    "prototypes",
    "matching",
    "relation",
    "siamese",
    "gaussian",
    "ridge",
    "logistic",
    "bayesian",
    "in_context",
    "cnp",
    "mann",
    "delta",
    "transfer",
)
"""Files of this package, each with its `FAMILY`. A new family is such a file, and its line here."""

_EACH: list[Family] = [import_module(f"{__package__}.{file}").FAMILY for file in FILES]
FAMILIES: Families = MappingProxyType({family.name: family for family in _EACH})

DEFAULT = "gradient"
"""The family of genes that stand alone, without its name."""

VERBS = ("init", "adapt", "trajectory", "predict", "meta_loss")


class Named(NamedTuple):
    """A family, and what a genome says of it."""

    family: Family
    genes: Genes


def with_own(own: Sequence[Family]) -> Families:
    """Return all families, the user's own among them.

    Raises:
        StudyError: if one is none, or two have one name.
    """
    found = dict(FAMILIES)
    for family in own:
        if not isinstance(family, Family):
            raise StudyError(f"`families` must be evometa.learner.Family values, got {family!r}")
        if family.name in found:
            raise StudyError(f"families must differ in name, got {family.name!r} twice")
        found[family.name] = family
    return MappingProxyType(found)


def family_of(rule: Any, families: Families = FAMILIES) -> Named:
    """Return the family of a rule genome, and its genes.

    Args:
        rule: `{family: genes}`, or the genes of a gradient rule alone.
        families: all there are.

    Raises:
        ValueError: if it is no rule, or of no family that is known.
    """
    if not isinstance(rule, Mapping) or not rule:
        raise ValueError(f"a rule must be a dict of genes, got {rule!r}")
    name, genes = next(iter(rule.items()))
    if len(rule) > 1 or not isinstance(genes, Mapping):
        return Named(families[DEFAULT], rule)
    if name not in families:
        raise ValueError(f"a family must be one of {', '.join(families)}, got {name!r}")
    return Named(families[name], genes)


def make_learner(rule: Any, setting: Setting, families: Families = FAMILIES) -> Learner:
    """Turn a rule genome into a learner.

    Args:
        rule: as `family_of` takes it.
        setting: what it is made for.
        families: all there are.

    Raises:
        ValueError: if the rule does not fit the task, or a gene has no such value.
        TypeError: if a gene is unknown or missing, or the learner lacks a verb.
    """
    family, genes = family_of(rule, families)
    learner = family.make(genes, setting)
    missing = [verb for verb in VERBS if not callable(getattr(learner, verb, None))]
    if missing or not hasattr(learner, "traits"):
        raise TypeError(
            f"a learner of the family {family.name!r} must have {', '.join(VERBS)} and `traits`, "
            f"but {type(learner).__name__} lacks {', '.join(missing or ['traits'])}"
        )
    return learner


def formula_of(rule: Any, families: Families = FAMILIES) -> str:
    """Return how a rule genome learns, in one line; empty where it cannot be read."""
    try:
        family, genes = family_of(rule, families)
        return family.formula(genes, ())
    except Exception:  # a stranger's run may hold anything
        return ""


PRESETS: Mapping[str, Any] = MappingProxyType(
    {
        name: genes if family.name == DEFAULT else {family.name: genes}
        for family in FAMILIES.values()
        for name, genes in family.presets.items()
    }
)
"""Published ways of learning by name, as rule genomes."""


def preset(name: str, **changes: Any) -> dict[str, Any]:
    """Return a published way of learning as a rule genome, with some genes changed.

    Args:
        name: `maml`, `fomaml`, `anil`, `boil`, `reptile`, `meta-sgd`, `lslr` (learned per-layer
            per-step rates), `maml++`, `reptile-batches`, `proto-maml`, `fo-proto-maml`, `cavia`,
            `imaml`, `meta-curvature`, `alfa`, `meta-lstm`, an optimiser of `evometa.rule.KNOWN`,
            `protonet`, `matching`, `matching-fce`, `relation`, `siamese`, `gaussian`, `ridge`,
            `logistic`, `bayesian`, `in-context`, `cnp`, `mann`, `delta-rule`, `transfer`,
            `baseline++`.
        changes: genes to set, for instance `rate=0.4`.

    Raises:
        SpaceError: if the name or a gene is unknown.
    """
    if name not in PRESETS:
        raise SpaceError(f"a preset must be one of {', '.join(PRESETS)}, got {name!r}")
    genome: dict[str, Any] = copy.deepcopy(PRESETS[name])
    family, genes = cast(tuple[Family, dict[str, Any]], family_of(genome))
    known = (*genes, *family.optional)
    for gene, value in changes.items():
        if gene not in known:
            raise SpaceError(f"the rule {name} has the genes {', '.join(known)}, got {gene!r}")
        genes[gene] = value
    return genome


def learner_space(*own: Family) -> Choice:
    """Return the space of all ways of learning, those of one's own families among them."""
    families = with_own(own)
    every = Choice(**{name: family.space() for name, family in families.items()})
    return every.weighted({name: family.weight for name, family in families.items()})
