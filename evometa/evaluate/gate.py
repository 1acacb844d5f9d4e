"""What is known of a candidate before any training, and whether it can work at all.

The network is built and run on the meta device, where shapes are computed and arithmetic is not;
then one meta-gradient of one small episode shows whether the derivatives exist and are finite. A
candidate that cannot work costs milliseconds and is recorded with its reason.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from evometa.errors import EvometaError
from evometa.evaluate.curvature import check_curvature
from evometa.evaluate.pack import Layout, Pack
from evometa.evaluate.plan import LOOP, Plan, default_plan
from evometa.evaluate.program import Program
from evometa.evaluate.training import forked_random
from evometa.learner import Learner, make_learner, rule_size
from evometa.limits import broken
from evometa.network import Cost, Network, measure_cost
from evometa.records import Genome, derive_seed
from evometa.rule import preset
from evometa.study import Study
from evometa.task.protocol import Batch, EpisodeBatch


class Rejected(Exception):
    """The candidate cannot work; the message is the reason."""


class BeyondLimits(Rejected):
    """The candidate could work, but breaks a constraint of the study."""


@dataclass(frozen=True)
class Admission:
    """A candidate that can work.

    Attributes:
        learner: network and rule, with initial parameters drawn from the candidate's seed.
        network: the network as a function.
        cost: parameters and multiply-accumulates.
        rule_size: nodes of the rule's update.
        signature: equal for candidates that differ only in numbers.
        kin: equal for candidates that may share a pack, their rules' updates differing.
        plan: how its inner loops are executed.
        note: what was changed so that it can work; empty if nothing.
        random: whether the network draws random numbers, as dropout does.
        seconds: what the gate cost.
    """

    learner: Learner
    network: Network
    cost: Cost
    rule_size: int
    signature: str
    kin: str
    plan: Plan
    note: str
    random: bool
    seconds: float


def admit(
    study: Study,
    genome: Genome,
    seed: int,
    device: torch.device,
    plans: Mapping[str, Plan] = MappingProxyType({}),
) -> Admission:
    """Check that a candidate can work, and get it ready for meta-training.

    A network without second derivatives is first tried without fused attention and cuDNN's
    recurrent cells, then with a first-order rule.

    Args:
        study: the study, its task loaded.
        genome: one point of the study's space.
        seed: seeds the initial parameters.
        device: where the candidate would be trained.
        plans: how the inner loops of each kind of network are to be executed; default as
            `default_plan` says. A network that cannot be mapped runs in a loop whatever the plan.

    Raises:
        Rejected: with the reason, if the network does not build, shapes do not fit, the outputs
            are not what the task's loss takes, a derivative is missing or not finite, or a
            constraint on what is known now is broken.
    """
    started = time.perf_counter()
    with forked_random(seed):
        module = _build(study, genome)
        probe = _trim(study.task.episodes("meta-train", 2, _gate_generator()))
        inputs = probe.support.inputs[0]
        cost = _cost(study, genome, module, inputs)
        module = _materialised(module, inputs)
    rule = genome["rule"] if "rule" in genome else preset("maml")
    size = _rule_size(study, rule)
    known = {"params": cost.params, "macs": cost.macs, "rule_size": size}
    if beyond := broken(known, study.limits):
        raise BeyondLimits(beyond)
    learner, network, note = _differentiable(study, module, rule, probe)
    try:
        episodes = _trim(
            learner.training_task(study.task).episodes("meta-train", 2, _gate_generator())
        )
    except (ValueError, TypeError, EvometaError) as error:
        raise Rejected(f"the learner's own episodes cannot be drawn: {error}") from error
    wanted = plans.get(network.kind) or default_plan(network.kind, device)
    chosen = _probe(learner, episodes, seed, wanted)
    return Admission(
        learner=learner,
        network=network,
        cost=cost,
        rule_size=size,
        signature=_short_hash(learner.structure),
        kin=_short_hash(learner.kin),
        plan=chosen,
        note=note,
        random=_draws(network, inputs),
        seconds=time.perf_counter() - started,
    )


def _rule_size(study: Study, rule: Genome) -> int:
    try:
        return rule_size(rule, study.primitives)
    except Exception:  # no learner, for whatever reason: it is named below
        return 0


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _differentiable(
    study: Study, module: nn.Module, rule: Genome, probe: EpisodeBatch
) -> tuple[Learner, Network, str]:
    """Return a learner whose derivatives are right, its network, and what that took."""
    reason: Exception | None = None
    for plain, note in ((False, ""), (True, "without fused attention and cuDNN's recurrent cells")):
        learner, network = _learner(study, module, rule, plain)
        if not learner.second_order:
            return learner, network, note
        try:
            check_curvature(network, study.task.loss, probe.support)
        except Exception as error:
            reason = reason or error
        else:
            return learner, network, note
    learner, network = _learner(study, module, rule, plain=False)
    return learner.first_order(), network, f"first-order only: {_derivative_reason(reason)}"


def _learner(study: Study, module: nn.Module, rule: Genome, plain: bool) -> tuple[Learner, Network]:
    network = Network(module, plain=plain)
    try:
        learner = make_learner(rule, network, study.task, study.training.norm, study.primitives)
        learner.init()
    except (ValueError, TypeError) as error:
        raise Rejected(f"the learning rule does not fit: {error}") from error
    return learner, network


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


def _probe(learner: Learner, episodes: EpisodeBatch, seed: int, wanted: Plan) -> Plan:
    """Take a meta-gradient by the plan, or in a loop; return the one that works.

    Data-dependent control flow, for instance, cannot be mapped.
    """
    cpu = torch.device("cpu")
    both = EpisodeBatch(*(Batch(*(tensor.unsqueeze(0) for tensor in side)) for side in episodes))
    reason: Exception | None = None
    eager = replace(wanted, compile=False, graph=False)
    for plan, chosen in ((eager, wanted), (LOOP, LOOP)):
        try:
            meta = learner.init()
            stage = learner.at(1.0)
            program = Program(stage.learner, Layout.of(meta), plan)
            with forked_random(seed):
                found = program(Pack.of([meta], [0.0], cpu), stage.numbers, both)
        except Exception as error:
            reason = error
            continue
        loss = float(found.losses[0])
        if not math.isfinite(loss):
            raise Rejected(
                f"the untrained network's loss after adapting is {loss}; "
                "lower the rule's rate or steps"
            )
        if not bool(found.grads.isfinite().all()):
            raise Rejected("the derivative of the meta-loss is not finite")
        return chosen
    raise Rejected(f"an episode cannot be learned: {_derivative_reason(reason)}") from reason


def _draws(network: Network, inputs: Tensor) -> bool:
    """Return whether the network draws random numbers while training."""
    with forked_random(0), torch.no_grad():
        before = torch.get_rng_state()
        network(network.params, network.buffers, inputs, norm="batch", training=True)
        return not torch.equal(before, torch.get_rng_state())


def _derivative_reason(error: Exception | None) -> str:
    text = f"{type(error).__name__}: {error}"
    if any(word in text for word in ("derivative", "differentiate", "does not require grad")):
        return f"no second derivative through the network: {text}"
    return text


def _gate_generator() -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed("gate"))


def _trim(episodes: EpisodeBatch) -> EpisodeBatch:
    """Keep few queries: shapes and derivatives do not depend on their number."""
    most = max(2, episodes.support.inputs.shape[1])
    queries = Batch(episodes.query.inputs[:, :most], episodes.query.targets[:, :most])
    return EpisodeBatch(episodes.support, queries)
