"""What is known of a candidate before any training, and whether it can work at all.

The network is built and run on the meta device, where shapes are computed and arithmetic is not;
then one meta-gradient of one small episode shows whether the derivatives exist and are finite. A
candidate that cannot work costs milliseconds and is recorded with its reason.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from evometa.evaluate.curvature import check_curvature
from evometa.evaluate.training import LOOP, VMAP, Plan, forked_random, leaves, meta_gradient
from evometa.learner import GradientLearner, Meta
from evometa.network import Cost, Network, measure_cost
from evometa.records import Genome, derive_seed
from evometa.rule import Rule, make_rule, preset
from evometa.study import Study
from evometa.task.protocol import Batch, EpisodeBatch


class Rejected(Exception):
    """The candidate cannot work; the message is the reason."""


@dataclass(frozen=True)
class Admission:
    """A candidate that can work.

    Attributes:
        learner: network and rule, with initial parameters drawn from the candidate's seed.
        cost: parameters and multiply-accumulates.
        signature: equal for candidates that differ only in numbers.
        plan: how its inner loops are executed.
        seconds: what the gate cost.
    """

    learner: GradientLearner
    cost: Cost
    signature: str
    plan: Plan
    seconds: float


def admit(study: Study, genome: Genome, seed: int, device: torch.device) -> Admission:
    """Check that a candidate can work, and get it ready for meta-training.

    Args:
        study: the study, its task loaded.
        genome: one point of the study's space.
        seed: seeds the initial parameters.
        device: where the candidate would be trained; decides the plan.

    Raises:
        Rejected: with the reason, if the network does not build, shapes do not fit, the outputs
            are not what the task's loss takes, or a derivative is missing or not finite.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(derive_seed("gate"))
    probe = _trim(study.task.episodes("meta-train", 2, generator))
    with forked_random(seed):
        module = _build(study, genome)
        inputs = probe.support.inputs[0]
        cost = _cost(study, genome, module, inputs)
        network = Network(_materialised(module, inputs))
    try:
        rule = make_rule(genome["rule"] if "rule" in genome else preset("maml"))
        learner = GradientLearner(
            network, rule, study.task.loss, study.task.scores, study.training.norm
        )
        meta = learner.init()
    except (ValueError, TypeError) as error:
        raise Rejected(f"the learning rule does not fit: {error}") from error
    if rule.order == 2:
        try:
            check_curvature(learner, meta, probe.support)
        except Exception as error:
            raise Rejected(_derivative_reason(rule, error)) from error
    plan = _probe(learner, meta, probe, seed, device)
    return Admission(
        learner=learner,
        cost=cost,
        signature=_signature(network, rule, study.training.norm),
        plan=plan,
        seconds=time.perf_counter() - started,
    )


def _build(study: Study, genome: Genome) -> nn.Module:
    try:
        module = study.build(genome)
    except Exception as error:
        raise Rejected(f"build raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise Rejected(
            f"build must return a torch.nn.Module, got {type(module).__name__}; "
            "does it end with `return`?"
        )
    if not any(p.requires_grad for p in module.parameters()):
        raise Rejected("the network has no trainable parameters, so there is nothing to learn")
    return module


def _cost(study: Study, genome: Genome, module: nn.Module, inputs: Tensor) -> Cost:
    try:
        with torch.device("meta"):
            cost, shape = measure_cost(study.build(genome), inputs.to("meta"))
    except Exception:
        # Some modules read values while they run, which the meta device does not have.
        try:
            cost, shape = measure_cost(module, inputs)
        except Exception as error:
            raise Rejected(
                f"the network does not run on inputs of shape {tuple(inputs.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not shape or shape[0] != len(inputs):
        raise Rejected(
            f"the network must return one prediction an example: for {len(inputs)} examples it "
            f"returned shape {tuple(shape)}"
        )
    return cost


def _materialised(module: nn.Module, inputs: Tensor) -> nn.Module:
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        with torch.no_grad():
            module(inputs)
    return module


def _probe(
    learner: GradientLearner, meta: Meta, probe: EpisodeBatch, seed: int, device: torch.device
) -> Plan:
    """Take a meta-gradient by the plans that may be used; return the first that works.

    The choice follows from the network and the kind of device, never from a timing, so that the
    same candidate gives the same numbers every time: on a CPU, `vmap` turns convolutions into
    grouped ones, which lose to the plain loop by about two to one; over small dense layers it wins
    by about seven. Data-dependent control flow cannot be mapped at all.
    """
    plans = (LOOP,) if learner.network.has_convolution and device.type == "cpu" else (VMAP, LOOP)
    reason: Exception | None = None
    for plan in plans:
        try:
            with forked_random(seed):
                trained = leaves(meta)
                loss = meta_gradient(learner, trained, probe, plan)
        except Exception as error:
            reason = error
            continue
        if not math.isfinite(loss):
            raise Rejected(
                f"the untrained network's loss after adapting is {loss}; "
                "lower the rule's rate or steps"
            )
        grads = [value.grad for part in ("params", "learned") for value in trained[part].values()]
        if not all(bool(grad.isfinite().all()) for grad in grads if grad is not None):
            raise Rejected(f"the derivative of order {learner.rule.order} is not finite")
        return plan
    assert reason is not None
    raise Rejected(_derivative_reason(learner.rule, reason)) from reason


def _derivative_reason(rule: Rule, error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if any(word in text for word in ("derivative", "differentiate", "does not require grad")):
        return f"no derivative of order {rule.order} through the network: {text}"
    return f"an episode cannot be learned: {text}"


def _trim(episodes: EpisodeBatch) -> EpisodeBatch:
    """Keep few queries: shapes and derivatives do not depend on their number."""
    most = max(2, episodes.support.inputs.shape[1])
    queries = Batch(episodes.query.inputs[:, :most], episodes.query.targets[:, :most])
    return EpisodeBatch(episodes.support, queries)


def _signature(network: Network, rule: Rule, norm: str) -> str:
    text = f"{network.structure}\n{rule.structure}\n{norm}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
