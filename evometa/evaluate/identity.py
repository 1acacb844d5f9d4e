"""When do two genomes stand for the same candidate?"""

from __future__ import annotations

from collections.abc import Callable

from evometa.learner import family_of
from evometa.records import Genome, genome_hash
from evometa.study import Study


def identify(study: Study) -> Callable[[Genome], str]:
    """Return a function that gives genomes which do the same the same text.

    Ways of learning are compared as their family says, such as gradient rules by what they do;
    all else as it is.
    """
    own, families = study.primitives, study.all_families

    def identity(genome: Genome) -> str:
        if not isinstance(genome, dict) or "rule" not in genome:
            return genome_hash(genome)
        try:
            family, genes = family_of(genome["rule"], families)
            rule = f"{family.name}:{family.identity(genes, own)}"
        except Exception:  # no learner, for whatever reason: the gate says which
            return genome_hash(genome)
        return genome_hash({**genome, "rule": rule})

    return identity
