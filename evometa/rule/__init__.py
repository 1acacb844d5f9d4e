"""How does a candidate adapt? The update within the inner loop, as a value.

A rule genome is plain data: steps, rate, which rates are learned, which parameters adapt, the order
of derivative, and how the outer loop trains. `rule_space` says what may be proposed, `preset` names
the published points of that space, and `make_rule` turns a genome into a pure, differentiable
`Rule`.
"""

from evometa.rule.outer import DEFAULT_OUTER, Outer, make_outer
from evometa.rule.protocol import Rule, State
from evometa.rule.sgd import Sgd, make_rule
from evometa.rule.space import PRESETS, outer_space, preset, prototype_space, rule_space

__all__ = [
    "DEFAULT_OUTER",
    "PRESETS",
    "Outer",
    "Rule",
    "Sgd",
    "State",
    "make_outer",
    "make_rule",
    "outer_space",
    "preset",
    "prototype_space",
    "rule_space",
]
