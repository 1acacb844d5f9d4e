"""What the genes of a gradient rule may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evometa.rule.gradient import GradientRule

RATES = ("fixed", "shared", "layer", "layer-step", "parameter")
BY_TENSOR = ("tensor", "tensor-step")
ADAPTS = ("all", "head", "body", "norm", "channels")
CONTEXTS = ("context", "film")
ORDERS = (0, 1, 2)
AFFINE = ("shared", "step")
LOSSES = ("task", "squared", "huber")
SUPPORTS = ("batches", "stream")
HEADS = ("network", "prototypes")


def check_genes(rule: GradientRule) -> None:
    """Raise `ValueError` if a gene has a value that it cannot have."""
    for name, allowed in (
        ("order", ORDERS),
        ("rates", (*RATES, *BY_TENSOR)),
        ("affine", AFFINE),
        ("loss", LOSSES),
        ("head", HEADS),
    ):
        value = getattr(rule, name)
        if value not in allowed or type(value) is not type(allowed[0]):
            raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(rule, name)!r}")
    _check_adapts(rule)
    if type(rule.steps) is not int or rule.steps < 1:
        raise ValueError(f"`steps` must be a whole number from 1, got {rule.steps!r}")
    for name, low, high in (
        ("rate", 0.0, math.inf),
        ("clip", 0.0, math.inf),
        ("multi_step", 0.0, 1.0),
        ("anneal", 0.0, 1.0),
    ):
        value = getattr(rule, name)
        number = isinstance(value, int | float) and math.isfinite(value)
        if not number or not low <= value <= high:
            raise ValueError(
                f"`{name}` must be a finite number from {low:g} to {high:g}, got {value!r}"
            )
    _check_support(rule)
    if isinstance(rule.update, str) or not isinstance(rule.update, Sequence):
        raise ValueError(f"`update` must be a list of tokens, got {rule.update!r}")
    _check_derivative(rule)


def _check_adapts(rule: GradientRule) -> None:
    if isinstance(rule.adapts, str):
        mask = "1" in rule.adapts and set(rule.adapts) <= {"0", "1"}
        right = rule.adapts in ADAPTS or mask
    else:
        right = rule.context is not None
    if not right:
        raise ValueError(
            f"`adapts` must be one of {ADAPTS}, a 0 or 1 for each layer such as '011', "
            f"{{'context': n}} or {{'film': n}} with n from 1, got {rule.adapts!r}"
        )


def _check_derivative(rule: GradientRule) -> None:
    if rule.derivative == "unrolled":
        return
    strength, solves = rule.implicit or (0.0, 0)
    number = isinstance(strength, int | float) and math.isfinite(strength) and strength > 0
    if not number or type(solves) is not int or solves < 1 or len(rule.derivative) > 1:
        raise ValueError(
            "`derivative` must be 'unrolled' or {'implicit': {'strength': s, 'solves': n}} with "
            f"s above 0 and n from 1, got {rule.derivative!r}"
        )
    learns = rule.rates != "fixed" or rule.extras or rule.senses or "learned" in rule.update
    wanted = {
        "`rates` must be 'fixed', and `update` without learned numbers": not learns,
        "`order` must be 2": rule.order == 2,
        "`multi_step` must be 0": rule.multi_step == 0,
        "`affine` must be 'shared'": rule.affine == "shared",
        "`support` must not be a stream": not rule.streams,
    }
    for what, holds in wanted.items():
        if not holds:
            raise ValueError(f"{what} where the derivative is implicit, which sees no steps")


def _check_support(rule: GradientRule) -> None:
    if rule.support == "all":
        return
    single = isinstance(rule.support, Mapping) and len(rule.support) == 1
    way, size = next(iter(rule.support.items())) if single else ("", 0)
    if way not in SUPPORTS or type(size) is not int or size < 1:
        raise ValueError(
            "`support` must be 'all', {'batches': n} or {'stream': n} with n from 1, got "
            f"{rule.support!r}"
        )
    if way == "stream" and rule.multi_step:
        raise ValueError("`multi_step` must be 0 where the support is a stream")
    if way == "stream" and rule.head != "network":
        raise ValueError(
            "`head` must be 'network' where the support is a stream, which does not show all "
            "classes at once"
        )
