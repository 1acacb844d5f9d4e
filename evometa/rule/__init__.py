"""How does a candidate adapt? The update within the inner loop, as a value.

A rule genome is plain data: steps, rate, which rates are learned, which parameters adapt, the order
of derivative, and how the outer loop trains. `rule_space` says what may be proposed, `preset` names
the published points of that space, and `make_rule` turns a genome into a pure, differentiable
`Rule`.
"""

from evometa.rule.canonical import check_update, fingerprint, simplified
from evometa.rule.files import read_rule
from evometa.rule.gradient import DESCENT, EXTRAS, GradientRule, make_rule
from evometa.rule.known import KNOWN
from evometa.rule.mixed import MixedRule
from evometa.rule.operations import OPERATIONS
from evometa.rule.outer import DEFAULT_OUTER, Outer, make_outer
from evometa.rule.protocol import Rule
from evometa.rule.source import formula, python_source
from evometa.rule.space import (
    PRESETS,
    outer_space,
    preset,
    prototype_space,
    rule_space,
    update_space,
)

__all__ = [
    "DEFAULT_OUTER",
    "DESCENT",
    "EXTRAS",
    "KNOWN",
    "OPERATIONS",
    "PRESETS",
    "GradientRule",
    "MixedRule",
    "Outer",
    "Rule",
    "check_update",
    "fingerprint",
    "formula",
    "make_outer",
    "make_rule",
    "outer_space",
    "preset",
    "prototype_space",
    "python_source",
    "read_rule",
    "rule_space",
    "simplified",
    "update_space",
]
