"""What is known of a candidate before any training, and whether it can work at all.

The network is built and run on the meta device, where shapes are computed and arithmetic is not;
then one meta-gradient of one small episode shows whether the derivatives exist and are finite, and
one episode is scored. A candidate that cannot work costs milliseconds and is recorded with its
reason.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils import _pytree as pytree

from evometa.evaluate.faults import asked_first, check_broadcast, draw
from evometa.evaluate.measuring import Measured, adapting, measured
from evometa.evaluate.plan import LOOP, Plan, default_plan
from evometa.evaluate.probe import BeyondLimits, Rejected, check_output, choose_learner, probe
from evometa.evaluate.randomness import begin, drawn_from
from evometa.evaluate.training import training_task
from evometa.learner import Learner, Meta, Traits, family_of, preset
from evometa.limits import broken
from evometa.network import Cost, Network, check_faithful, measure_cost
from evometa.records import Genome, derive_seed
from evometa.study import Study
from evometa.task.episodes import examples_of, leading, over, part_of
from evometa.task.protocol import EpisodeBatch, Side, is_mappable, sized
from evometa.user_code import copied, user_code


@dataclass(frozen=True)
class Admission:
    """A candidate that can work.

    Attributes:
        learner: network and way of learning.
        meta: its meta-parameters before any training, drawn from the candidate's seed.
        network: the network as a function.
        module: the network as `build` made it.
        cost: parameters, the learner's own among them, and multiply-accumulates of the network.
        rule_size: nodes of the rule's update.
        measures: what the user's measures of the untrained candidate gave.
        signature: equal for candidates that differ only in numbers.
        kin: equal for candidates that may share a pack, their rules' updates differing.
        plan: how its inner loops are executed.
        note: what was changed so that it can work; empty if nothing.
        random: whether the network draws random numbers, as dropout does, whoever gives them.
        seconds: what the gate cost.
    """

    learner: Learner
    meta: Meta
    network: Network
    module: nn.Module
    cost: Cost
    rule_size: int
    measures: Mapping[str, float]
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
            `default_plan` says. What cannot be mapped runs in a loop whatever the plan.

    Raises:
        Rejected: with the reason, if the network does not build, shapes do not fit, the outputs
            are not what the task's loss takes, a derivative is missing or not finite, or a
            constraint on what is known now is broken.
        TaskError: if the task is at fault.
    """
    started, task = time.perf_counter(), sized(study.task, "gate")
    drawn = _trimmed(draw(task, "meta-train", 2, derive_seed("gate")))
    support = part_of(drawn.support, 0)
    inputs = asked_first(task, support)
    module, cost, outputs = _made(study, genome, seed, support, inputs)
    rule = genome["rule"] if isinstance(genome, dict) and "rule" in genome else preset("maml")
    known = {"params": cost.params, "macs": cost.macs, "rule_size": _rule_size(study, rule)}
    _keep_limits(study, known)
    chosen = choose_learner(study, module, rule, support, outputs)
    learner, network = chosen.learner, chosen.network
    check_output(network, inputs, seed)
    traits, meta, sources = learner.traits, begin(learner, seed), _sources(network, inputs)
    cost = _with_own(cost, network, meta)
    own = _own_episodes(learner, traits, study, drawn)
    mapped = is_mappable(task) and traits.mappable and sources in ([], ["torch"])
    wanted = plans.get(network.kind) or default_plan(network.kind, device) if mapped else LOOP
    plan = probe(chosen, meta, study, drawn, own, seed, wanted)
    found = _measures(study, genome, module, inputs, learner, meta, support)
    _keep_limits(study, {**known, "params": cost.params, **found})
    return Admission(
        learner=learner,
        meta=meta,
        network=network,
        module=module,
        cost=cost,
        rule_size=known["rule_size"],
        measures=found,
        signature=_short_hash(traits.structure),
        kin=_short_hash(_kin(study, rule, learner)),
        plan=plan,
        note="; ".join(filter(None, [chosen.note, _said_of(sources)])),
        random=bool(sources),
        seconds=time.perf_counter() - started,
    )


def _with_own(cost: Cost, network: Network, meta: Meta) -> Cost:
    """Return the cost with the weights that the learner has besides the network's."""
    own = sum(each.numel() for name, each in meta["params"].items() if name not in network.params)
    return replace(cost, params=cost.params + own)


def _made(
    study: Study, genome: Genome, seed: int, support: Side, inputs: Any
) -> tuple[nn.Module, Cost, Any]:
    """Return the network as a module, its cost, and its outputs on the meta device."""
    with user_code(seed):
        module = _build(study, genome)
        cost, outputs = _cost(study, genome, module, inputs)
        check_broadcast(study.task, outputs, support)
        module = _materialised(module, inputs)
    _check_randomness(study, genome, seed, module)
    _check_function(module, inputs)
    return module, cost, outputs


def _keep_limits(study: Study, known: Mapping[str, float]) -> None:
    """Raise `BeyondLimits` if what is known now breaks a constraint."""
    if beyond := broken(known, study.limits):
        raise BeyondLimits(beyond)


def _kin(study: Study, rule: Genome, learner: Learner) -> str:
    """Return what is equal for candidates whose rules may share a program."""
    mixing = family_of(rule, study.all_families).family.mixing
    return mixing.kin(learner) if mixing else learner.traits.structure


def _rule_size(study: Study, rule: Genome) -> int:
    try:
        family, genes = family_of(rule, study.all_families)
        return family.size(genes, study.primitives)
    except Exception:  # no learner, for whatever reason: it is named below
        return 0


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _build(study: Study, genome: Genome) -> nn.Module:
    try:
        module = study.build(copied(genome))
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


def _check_randomness(study: Study, genome: Genome, seed: int, module: nn.Module) -> None:
    """Refuse a module that is another one when it is built again from the same seed."""
    with user_code(seed):
        twin = dict(_build(study, genome).named_parameters())
    for name, value in module.named_parameters():
        own = twin.get(name)
        if own is None or isinstance(own, UninitializedParameter):
            continue
        if own.shape != value.shape or not torch.equal(own, value):
            raise Rejected(
                f"build must draw random numbers from the global generators of torch, numpy or "
                f"`random`, which are seeded for each candidate, but with one seed {name!r} came "
                "out differently twice; has it a generator of its own?"
            )


def _cost(study: Study, genome: Genome, module: nn.Module, inputs: Any) -> tuple[Cost, Any]:
    """Return the network's cost, and its outputs on the meta device."""
    meta = torch.device("meta")
    try:
        with meta:
            built = study.build(copied(genome))
            cost, outputs = measure_cost(built, over(lambda leaf: leaf.to(meta), inputs))
    except Exception:
        # Some modules read values while they run, which the meta device does not have.
        try:
            cost, outputs = measure_cost(module, over(torch.clone, inputs))
        except Exception as error:
            raise Rejected(
                f"the network does not run on inputs of shape {_shapes(inputs)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    leaves, (count,) = pytree.tree_leaves(outputs), leading(inputs, 1)
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        kinds = ", ".join(type(leaf).__name__ for leaf in leaves) or "nothing"
        raise Rejected(f"the network must return tensors, got {kinds}")
    if any(not leaf.dim() or len(leaf) != count for leaf in leaves):
        raise Rejected(
            f"the network must return one prediction an example: for {count} examples it "
            f"returned shape {_shapes(outputs)}"
        )
    return cost, over(lambda leaf: leaf.to(meta), outputs)


def _shapes(tree: Any) -> str:
    shapes = [str(tuple(leaf.shape)) for leaf in pytree.tree_leaves(tree)]
    return ", ".join(shapes)


def _materialised(module: nn.Module, inputs: Any) -> nn.Module:
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        with torch.no_grad():
            module(over(torch.clone, inputs))
    return module


def _check_function(module: nn.Module, inputs: Any) -> None:
    try:
        check_faithful(module, inputs)
    except Exception as error:
        known = isinstance(error, ValueError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        raise Rejected(f"the network cannot be trained here: {reason}") from error


def _own_episodes(
    learner: Learner, traits: Traits, study: Study, drawn: EpisodeBatch
) -> EpisodeBatch:
    """Return episodes as the learner is meta-trained on."""
    if traits.ways is None:
        return drawn
    try:
        own = sized(training_task(study.task, traits), "gate")
        generator = torch.Generator().manual_seed(derive_seed("gate"))
        return _trimmed(own.episodes("meta-train", 2, generator))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise Rejected(f"the learner's own episodes cannot be drawn: {error}") from error


def _measures(
    study: Study,
    genome: Genome,
    module: nn.Module,
    inputs: Any,
    learner: Learner,
    meta: Meta,
    support: Side,
) -> dict[str, float]:
    """Return what the measures of the untrained candidate give."""

    def candidate() -> Measured:
        own = copy.deepcopy(module).eval()
        return Measured(
            copied(genome),
            own,
            over(torch.clone, inputs),
            adapting(learner, {**meta, "stage": {}}, support),
        )

    with user_code(0):
        return measured(study.measures, candidate, trained=False)


def _sources(network: Network, inputs: Any) -> list[str]:
    """Return the generators that the network draws from while training."""

    def run() -> None:
        with torch.no_grad():
            network(network.params, network.buffers, inputs, norm="batch", training=True)

    return drawn_from(run)


def _said_of(sources: Sequence[str]) -> str:
    """Say who draws from what no program over tasks can draw from."""
    others = [name for name in sources if name != "torch"]
    if not others:
        return ""
    return (
        f"the network draws from {' and '.join(others)} while it is trained, so its tasks run in a "
        "loop; torch's generator would do for all of them at once"
    )


def _trimmed(episodes: EpisodeBatch) -> EpisodeBatch:
    """Keep few queries: shapes and derivatives do not depend on their number."""
    query = episodes.query
    if not (hasattr(query, "inputs") and hasattr(query, "targets")):
        return episodes
    most = max(2, examples_of(part_of(episodes.support, 0)))
    few = (slice(None), slice(most))
    return episodes._replace(
        query=query._replace(inputs=part_of(query.inputs, few), targets=part_of(query.targets, few))
    )
