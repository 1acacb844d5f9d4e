"""How does a candidate adapt? The update within the inner loop, as a value.

A rule genome is plain data: `steps`, `rate`, which rates are learned, which parameters adapt, and
the order of derivative. `rule_space` says what may be proposed, `preset` names the published points
of that space, and `make_rule` turns a genome into a pure, differentiable `Rule`.
"""

from evometa.rule.protocol import Rule, State
from evometa.rule.sgd import Sgd, make_rule
from evometa.rule.space import PRESETS, preset, rule_space

__all__ = ["PRESETS", "Rule", "Sgd", "State", "make_rule", "preset", "rule_space"]
