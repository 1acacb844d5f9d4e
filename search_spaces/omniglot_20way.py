"""Omniglot, 20-way 1-shot, within the size of conv4-32: the best network with its way of learning.

Everything is searched together: depth, widths, kernels, normalisation, activation, pooling or
stride, skip connections and head of the network; whether it learns by gradient steps, with which
update, rates and steps, or by prototypes, with which distance; and the rate of the outer loop. No
candidate may have more parameters than MAML's network, which is the published one (Finn et al.,
2017) with 32 filters, nor more multiply-accumulates than its pooled form, which MAML++ and
prototypical networks are published with. Batch norm is transductive, as MAML is published: the
queries of an episode are predicted together.

    evometa search search_spaces/omniglot_20way.py --download
    evometa confirm runs/omniglot_20way
"""

from torch import nn

from evometa import Study, Training, halving
from evometa import space as s
from evometa.learner import preset, prototype_space
from evometa.network import ConvBlock, conv_net
from evometa.rule import rule_space, update_space
from evometa.task import Omniglot

WAYS = 20

block = s.Struct(
    width=s.Choice(8, 16, 24, 32, 48),
    kernel=s.Choice(3, 5),
    reduce=s.Choice("pool", "stride"),
    skip=s.Choice(False, True),
)
outer = s.Choice(
    adam=s.Struct(
        rate=s.Float(1e-3, 1e-2, log=True), schedule=s.Choice("constant", "linear", "cosine")
    )
)

space = s.Struct(
    blocks=s.List(block, min=2, max=4),
    norm=s.Choice("batch", "group"),
    activation=s.Choice("relu", "leaky_relu", "elu", "silu"),
    head=s.Choice("mean", "flatten"),
    rule=s.Choice(
        gradient=rule_space(
            steps=s.Int(1, 5),
            rate=s.Float(0.01, 1.0, log=True),
            order=s.Choice(2),
            adapts=s.Choice("all", "head", "body"),
            outer=outer,
            update=update_space(size=12),
        ),
        prototypes=prototype_space(ways=s.Choice(20, 30, 60), outer=outer),
    ),
)


def build(genome) -> nn.Module:
    blocks, channels = [], 1
    for gene in genome["blocks"]:
        blocks.append(
            ConvBlock(channels, **gene, norm=genome["norm"], activation=genome["activation"])
        )
        channels = gene["width"]
    outputs = None if "prototypes" in genome["rule"] else WAYS
    return conv_net(blocks, outputs, head=genome["head"])


def conv4(reduce: str, rule: dict, head: str = "mean") -> dict:
    """The published network with 32 filters."""
    layer = {"width": 32, "kernel": 3, "reduce": reduce, "skip": False}
    return {
        "blocks": [layer] * 4,
        "norm": "batch",
        "activation": "relu",
        "head": head,
        "rule": rule,
    }


fast = {"adam": {"rate": 5e-3, "schedule": "constant"}}

study = Study(
    space=space,
    build=build,
    task=Omniglot(ways=WAYS, shots=1, queries=3, split="random"),
    objectives={"accuracy": "max", "params": "min"},
    constraints=["params <= 28_980", "macs <= 2_640_000"],
    baselines={
        "MAML": conv4("stride", {"gradient": preset("maml", steps=5, rate=0.1)}),
        "MAML, outer 5e-3": conv4(
            "stride", {"gradient": preset("maml", steps=5, rate=0.1, outer=fast)}
        ),
        "MAML++": conv4("pool", {"gradient": preset("maml++", rate=0.4)}),
        "ProtoNet": conv4("pool", preset("protonet"), head="flatten"),
    },
    training=Training(iterations=150, tasks=4, validation=60, norm="transductive"),
    rungs=halving(2),
    candidates=80,
)
