"""How well does a network learn with a rule? Learners adapt to an episode and are scored on it.

A `Learner` is a set of pure functions of values, so the same code serves one task in a loop and
many under `vmap`. `GradientLearner` covers the MAML family; the rule says which member.
"""

from evometa.learner.gradient import GradientLearner
from evometa.learner.protocol import Adapted, Learner, Meta

__all__ = ["Adapted", "GradientLearner", "Learner", "Meta"]
