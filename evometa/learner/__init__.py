"""How well does a network learn with a rule? Learners adapt to an episode and are scored on it.

A `Learner` is a set of pure functions of values, so the same code serves one task in a loop, many
under `vmap`, and a pack of candidates. A `Family` is one way of learning: its learner, its space,
its presets, in one file. A new one is that file and its name in `families`.
"""

from evometa.learner.embedded import Embedded, Head, Own, Shown, make_embedded
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
from evometa.learner.gradient import GradientLearner
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
from evometa.learner.ridge import ridge_space

__all__ = [
    "FAMILIES",
    "PRESETS",
    "Adapted",
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
    "family_of",
    "formula_of",
    "learner_space",
    "make_embedded",
    "make_learner",
    "predictor",
    "preset",
    "prototype_space",
    "ridge_space",
    "stage_at",
    "unmapped",
    "with_own",
]
