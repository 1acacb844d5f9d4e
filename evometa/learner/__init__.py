"""How well does a network learn with a rule? Learners adapt to an episode and are scored on it.

A `Learner` is a set of pure functions of values, so the same code serves one task in a loop, many
under `vmap`, and a pack of candidates. A `Family` is one way of learning: its learner, its space,
its presets, in one file. A new one is that file and its name in `families`.
"""

from evometa.learner.bayesian import bayesian_space
from evometa.learner.cnp import cnp_space
from evometa.learner.delta import delta_space
from evometa.learner.embedded import Asked, Embedded, Head, Own, Shown, make_embedded
from evometa.learner.families import (
    FAMILIES,
    PRESETS,
    Families,
    family_of,
    formula_of,
    learner_space,
    make_learner,
    preset,
    with_own,
)
from evometa.learner.family import Family, Mixing, Outline, Setting
from evometa.learner.gaussian import gaussian_space
from evometa.learner.gradient import GradientLearner
from evometa.learner.in_context import in_context_space
from evometa.learner.logistic import logistic_space
from evometa.learner.mann import mann_space, presentations
from evometa.learner.matching import matching_space
from evometa.learner.protocol import (
    Adapted,
    Learner,
    Loss,
    Meta,
    MetaLoss,
    Stage,
    Tensors,
    Traits,
    Walk,
    predictor,
    stage_at,
    unmapped,
)
from evometa.learner.prototypes import Prototypes, prototype_space
from evometa.learner.relation import relation_space
from evometa.learner.ridge import ridge_space
from evometa.learner.siamese import siamese_space
from evometa.learner.transfer import transfer_space

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Adapted",
    "Asked",
    "Embedded",
    "Families",
    "Family",
    "GradientLearner",
    "Head",
    "Learner",
    "Loss",
    "Meta",
    "MetaLoss",
    "Mixing",
    "Outline",
    "Own",
    "Prototypes",
    "Setting",
    "Shown",
    "Stage",
    "Tensors",
    "Traits",
    "Walk",
    "bayesian_space",
    "cnp_space",
    "delta_space",
    "family_of",
    "formula_of",
    "gaussian_space",
    "in_context_space",
    "learner_space",
    "logistic_space",
    "make_embedded",
    "make_learner",
    "mann_space",
    "matching_space",
    "predictor",
    "presentations",
    "preset",
    "prototype_space",
    "relation_space",
    "ridge_space",
    "siamese_space",
    "stage_at",
    "transfer_space",
    "unmapped",
    "with_own",
]
