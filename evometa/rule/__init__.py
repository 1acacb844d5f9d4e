"""How does a candidate adapt? The update within the inner loop, as a value.

A rule genome is plain data: steps, rate, which rates are learned, which parameters adapt, the order
of derivative, and how the outer loop trains. `rule_space` says what may be proposed, `RULES` names
the published points of that space, and `make_rule` turns a genome into a pure, differentiable
`Rule`.
"""

from __future__ import annotations

import importlib
from typing import Any

from evometa.rule.canonical import check_update, fingerprint, simplified
from evometa.rule.files import read_rule
from evometa.rule.gradient import DESCENT, EXTRAS, GradientRule, make_rule
from evometa.rule.known import KNOWN
from evometa.rule.mixed import MixedRule
from evometa.rule.operations import LEARNED, OPERATIONS
from evometa.rule.outer import DEFAULT_OUTER, Outer, make_outer
from evometa.rule.protocol import Rule
from evometa.rule.source import formula, python_source
from evometa.rule.space import (
    RULES,
    outer_space,
    rule_space,
    update_space,
)

__all__ = [
    "DEFAULT_OUTER",
    "DESCENT",
    "EXTRAS",
    "KNOWN",
    "LEARNED",
    "OPERATIONS",
    "RULES",
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
    "python_source",
    "read_rule",
    "rule_space",
    "simplified",
    "update_space",
]


def __getattr__(name: str) -> Any:
    """Find what studies of version 0.1 import from here."""
    if name in ("PRESETS", "preset", "prototype_space"):
        return getattr(importlib.import_module("evometa.learner"), name)
    raise AttributeError(f"module 'evometa.rule' has no attribute {name!r}")
