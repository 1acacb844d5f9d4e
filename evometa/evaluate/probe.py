"""Try a candidate on one small episode: do its derivatives exist, can it be learned and scored?"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evometa.errors import TaskError
from evometa.evaluate.curvature import check_curvature, check_differentiable
from evometa.evaluate.faults import checked_loss, checked_scores, place_of
from evometa.evaluate.pack import Layout, Pack
from evometa.evaluate.plan import LOOP, Plan
from evometa.evaluate.program import Program, mapped
from evometa.evaluate.randomness import begin, forked_random
from evometa.learner import (
    Learner,
    Meta,
    Setting,
    family_of,
    make_learner,
    predictor,
    stage_at,
    unmapped,
)
from evometa.network import Network, unpadded
from evometa.records import Genome
from evometa.study import Study
from evometa.task.episodes import over, part_of
from evometa.task.protocol import EpisodeBatch, Side, is_surrogate
from evometa.user_code import user_code

CPU = torch.device("cpu")


class Rejected(Exception):
    """The candidate cannot work; the message is the reason."""


class BeyondLimits(Rejected):
    """The candidate could work, but breaks a constraint of the study."""


@dataclass(frozen=True)
class Chosen:
    """A learner whose derivatives are right, its network, and what that took."""

    learner: Learner
    network: Network
    note: str
    advice: str


def choose_learner(
    study: Study, module: nn.Module, rule: Genome, support: Side, outputs: Any
) -> Chosen:
    """Return a learner whose derivatives are right."""
    _check_loss(study, module, support)
    reason: Exception | None = None
    for plain, note in ((False, ""), (True, "without fused attention and cuDNN's recurrent cells")):
        chosen = _learner(study, module, rule, outputs, plain=plain, note=note)
        if chosen.learner.traits.order < 2:
            return chosen
        try:
            _check_derivatives(study, chosen.network, support)
        except Exception as error:
            reason = reason or error
        else:
            return chosen
    family, genes = family_of(rule, study.all_families)
    if family.first_order is None:
        raise Rejected(f"the network cannot be learned: {_derivative_reason(reason)}")
    lower = {family.name: family.first_order(genes)}
    note = f"first-order only: {_derivative_reason(reason)}"
    return _learner(study, module, lower, outputs, plain=False, note=note)


def _check_loss(study: Study, module: nn.Module, support: Side) -> None:
    """Refuse a loss that is no scalar, where the network's outputs are predictions as they are."""
    try:
        own = copy.deepcopy(module)
        with user_code(0), torch.no_grad():
            loss = study.task.loss(lambda x: own(unpadded(x)), over(torch.clone, support))
    except Exception:  # they may be features; the learner's own are judged below
        return
    checked_loss(study.task, loss)


def _check_derivatives(study: Study, network: Network, support: Side) -> None:
    """Hold second derivatives against differences of first ones.

    The gradient of a surrogate is not the derivative of its value, so there the network is judged
    alone, on all that it meets, and the surrogate only differentiated twice.
    """
    loss = study.task.loss
    if not is_surrogate(study.task):
        check_curvature(network, loss, support)
        return
    met: list[Any] = []

    def meeting(inputs: Any) -> Any:
        met.append(over(torch.clone, unpadded(inputs)))
        own = network.unmapped
        return own(own.params, own.buffers, inputs, norm="batch", training=False)[0]

    with torch.no_grad():
        loss(meeting, support)

    def spread(predict: Any, inputs: Any) -> Tensor:
        leaves = [leaf for leaf in pytree.tree_leaves(predict(inputs)) if leaf.is_floating_point()]
        return torch.stack([leaf.square().mean() for leaf in leaves]).sum()

    check_curvature(network, spread, pytree.tree_map(lambda *each: torch.cat(each), *met))
    check_differentiable(network, loss, support)


def _learner(
    study: Study, module: nn.Module, rule: Genome, outputs: Any, *, plain: bool, note: str
) -> Chosen:
    try:
        network = Network(module, plain=plain)
        setting = Setting(network, study.task, study.training.norm, outputs, study.primitives)
        learner = make_learner(rule, setting, study.all_families)
        advice = family_of(rule, study.all_families).family.advice
        begin(learner, 0)
    except (ValueError, TypeError) as error:
        raise Rejected(f"the learning rule does not fit: {error}") from error
    return Chosen(learner, network, note, advice)


def check_output(network: Network, inputs: Any, seed: int) -> None:
    """Refuse a network whose output does not depend on its input, whatever its parameters are."""
    with forked_random(seed), torch.no_grad():
        params = {k: v + 0.1 * torch.randn_like(v) for k, v in network.params.items()}
        state = torch.get_rng_state()
        found = []
        for shuffled in (inputs, over(lambda leaf: leaf.roll(1, 0), inputs)):
            torch.set_rng_state(state)  # the same dropout
            outputs, _ = network.unmapped(
                params, network.buffers, shuffled, norm="batch", training=False
            )
            found.append(pytree.tree_leaves(outputs))
    same_inputs = all(torch.equal(leaf, leaf.roll(1, 0)) for leaf in pytree.tree_leaves(inputs))
    if not same_inputs and all(torch.equal(a, b) for a, b in zip(*found, strict=True)):
        raise Rejected("the network's output does not depend on its input")


def probe(
    chosen: Chosen,
    meta: Meta,
    study: Study,
    drawn: EpisodeBatch,
    own: EpisodeBatch,
    seed: int,
    wanted: Plan,
) -> Plan:
    """Take a meta-gradient and score by the plan, or in a loop; return the one that works.

    Data-dependent control flow, for instance, cannot be mapped.

    Args:
        chosen: the learner.
        meta: its meta-parameters.
        study: what it is for.
        drawn: episodes as it is scored on.
        own: episodes as it is meta-trained on.
        seed: seeds what is random.
        wanted: the plan.
    """
    drawn, own = (over(lambda leaf: leaf.unsqueeze(0), each) for each in (drawn, own))
    reason: Exception | None = None
    eager = replace(wanted, compile=False, graph=False)
    learner = chosen.learner
    for plan, kept in ((eager, wanted), (LOOP, LOOP)):
        try:
            with forked_random(seed):
                stage = stage_at(learner, learner.traits, 1.0)
                program = Program(stage.learner, Layout.of(meta), plan)
                found = program(Pack.of([meta], [0.0], CPU), stage.numbers, own)
            _score(learner, meta, study, drawn, plan)
        except TaskError:
            raise
        except Exception as error:
            reason = reason or error
            continue
        loss = float(found.losses[0])
        if not math.isfinite(loss):
            raise Rejected(
                f"the untrained network's loss after adapting is {loss}"
                + (f"; {chosen.advice}" if chosen.advice else "")
            )
        if not bool(found.grads.isfinite().all()):
            raise Rejected("the derivative of the meta-loss is not finite")
        return kept
    where = "" if reason is None else place_of(reason)
    raise Rejected(f"an episode cannot be learned{where}: {_derivative_reason(reason)}") from reason


def _score(learner: Learner, meta: Meta, study: Study, episodes: EpisodeBatch, plan: Plan) -> None:
    """Score an episode in the form that scores, and check what loss and scores return."""
    task, metrics = study.task, study.task_metrics
    layout, single = Layout.of(meta), plan.tasks == 1

    def score(flat: Tensor, carried: Any, numbers: Any, support: Any, query: Any, **_: Any) -> Any:
        own = {**layout.unflatten(flat), **carried, "stage": numbers}
        scoring = unmapped(learner) if single else learner
        adapted = scoring.adapt(own, support)
        checked_loss(task, task.loss(predictor(scoring, adapted), query))
        scores = task.scores(predictor(scoring, adapted), query)
        return checked_scores(task, scores, metrics)

    pack = Pack.of([meta], [0.0], CPU)
    part = part_of(episodes, (slice(None), slice(1))) if single else episodes
    with torch.no_grad():
        mapped(score, pack.flat, pack.carried, {}, part)


def _derivative_reason(error: Exception | None) -> str:
    text = f"{type(error).__name__}: {error}"
    if any(word in text for word in ("derivative", "differentiate", "does not require grad")):
        return f"no second derivative through the network: {text}"
    return text
