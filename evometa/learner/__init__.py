"""How well does a network learn with a rule? Learners adapt to an episode and are scored on it.

A `Learner` is a set of pure functions of values, so the same code serves one task in a loop, many
under `vmap`, and a pack of candidates. `GradientLearner` covers the MAML family, the rule says
which member; `Prototypes` the metric family.
"""

from evometa.learner.families import FAMILIES, behaviour, make_learner, rule_size
from evometa.learner.gradient import GradientLearner
from evometa.learner.protocol import (
    Adapted,
    Examples,
    Learner,
    Loss,
    Meta,
    MetaLoss,
    Stage,
    Tensors,
)
from evometa.learner.prototypes import Prototypes

__all__ = [
    "FAMILIES",
    "Adapted",
    "Examples",
    "GradientLearner",
    "Learner",
    "Loss",
    "Meta",
    "MetaLoss",
    "Prototypes",
    "Stage",
    "Tensors",
    "behaviour",
    "make_learner",
    "rule_size",
]
