"""The family of gradient rules: MAML and its kin, and whatever an update can express."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evometa.learner.additions import Addition, Context, PrototypeHead
from evometa.learner.embedding import is_embedding
from evometa.learner.family import Family, Genes, Mixing, Outline, Setting
from evometa.learner.gradient import GradientLearner
from evometa.learner.protocol import Learner
from evometa.rule import (
    DESCENT,
    RULES,
    GradientRule,
    MixedRule,
    check_update,
    fingerprint,
    formula,
    make_rule,
    python_source,
    rule_space,
    simplified,
)
from evometa.rule.update import Update
from evometa.space import Primitive
from evometa.task.classes import class_count


def _make(genes: Genes, setting: Setting) -> GradientLearner:
    """Turn a genome of `rule_space` into a learner.

    Raises:
        ValueError: if the rule cannot learn.
        TypeError: if a gene is unknown or missing.
    """
    rule = make_rule(genes, setting.primitives)
    check_update(rule)
    network, loss = setting.network, setting.task.loss
    learner = GradientLearner(
        network,
        rule,
        loss,
        setting.norm,
        additions=_additions(rule, setting),
        solves=0 if rule.implicit is None else rule.implicit[1],
    )
    if rule.order == 0 and not set(learner.adapting) & set(network.params):
        raise ValueError("order 0 must have parameters of the network that adapt: use adapts='all'")
    return learner


def _additions(rule: GradientRule, setting: Setting) -> tuple[Addition, ...]:
    """Return what a rule adds to a network.

    Raises:
        ValueError: if the task or the network lacks what that takes.
    """
    found: tuple[Addition, ...] = ()
    if rule.context is not None:
        size, film = rule.context
        found = (Context.of(setting.network, size, film=film),)
    if rule.head == "network":
        return found
    task, outputs = setting.task, setting.outputs
    if class_count(task) is None:
        raise ValueError(
            f"head='prototypes' needs a task of classes, with a field `ways`, and "
            f"{type(task).__name__} has none; use head='network'"
        )
    is_embedding(outputs, "prototypes")
    if outputs is None and rule.by_weight:
        raise ValueError("what is learned for each weight of a head needs the network's outputs")
    features = None if outputs is None else outputs.flatten(1).shape[1]
    return (*found, PrototypeHead(class_count(task), features))


def _formula(genes: Genes, primitives: Sequence[Primitive]) -> str:
    return formula(make_rule(genes, primitives))


def _outline(genes: Genes, primitives: Sequence[Primitive]) -> Outline | None:
    rule = make_rule(genes, primitives)
    if rule.update == DESCENT:
        return None
    shorter = replace(rule, update=simplified(rule.update, primitives))
    is_shorter = len(shorter.update) < len(rule.update)
    return Outline(_tree(rule.expression), formula(shorter) if is_shorter else "")


def _tree(update: Update, place: int = 0) -> tuple[str, Sequence[Any]]:
    node = update.nodes[place]
    name = node.value if isinstance(node.value, str) else f"{node.value:.4g}"
    learned = " (learned)" if node.learned else ""
    return f"{name}{learned} : {node.kind}", [_tree(update, child) for child in node.arguments]


def _size(genes: Genes, primitives: Sequence[Primitive]) -> int:
    update = genes.get("update")
    return 0 if update is None else len(simplified(update, primitives))


def _capped(genes: Genes, steps: int) -> Genes:
    return {**genes, "steps": min(steps, genes["steps"])} if "steps" in genes else genes


def _first_order(genes: Genes) -> Genes:
    rest = {name: gene for name, gene in genes.items() if name != "derivative"}
    return {**rest, "order": min(genes.get("order", 2), 1)}


def _together(learners: Sequence[GradientLearner]) -> Sequence[Learner]:
    rules: Any = tuple(learner.rule for learner in learners)
    return [replace(own, rule=MixedRule(rules, place)) for place, own in enumerate(learners)]


FAMILY = Family(
    name="gradient",
    make=_make,
    space=rule_space,
    presets=RULES,
    optional=("support", "head", "derivative"),
    formula=_formula,
    outline=_outline,
    source=lambda genes, primitives: python_source(make_rule(genes, primitives)),
    identity=lambda genes, primitives: fingerprint(make_rule(genes, primitives)),
    size=_size,
    capped=_capped,
    first_order=_first_order,
    mixing=Mixing(kin=lambda learner: learner.kin, together=_together),
    advice="lower the rule's rate or steps",
    weight=4.0,  # its space is larger than those of all others together
)
