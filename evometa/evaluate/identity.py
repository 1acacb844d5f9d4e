"""When do two genomes stand for the same candidate?"""

from __future__ import annotations

from collections.abc import Callable

from evometa.learner import behaviour
from evometa.records import Genome, genome_hash
from evometa.study import Study


def identify(study: Study) -> Callable[[Genome], str]:
    """Return a function that gives genomes which do the same the same text.

    Rules are compared by what they do, see `evometa.rule.fingerprint`; all else as it is.
    """
    own = study.primitives

    def identity(genome: Genome) -> str:
        if not isinstance(genome, dict) or "rule" not in genome:
            return genome_hash(genome)
        try:
            rule = behaviour(genome["rule"], own)
        except Exception:  # no learner, for whatever reason: the gate says which
            return genome_hash(genome)
        return genome_hash({**genome, "rule": rule})

    return identity
