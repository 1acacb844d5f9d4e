"""Omniglot characters, 5-way 1-shot: which convolutional network learns a new alphabet best?

Searched together: depth, widths, kernel sizes, normalisation, activation, pooling or stride, skip
connections and the head of the network, and the learning rule: steps and rates of second-order MAML
with the parts of MAML++, what adapts, and the schedule of the outer loop. The baseline is the
published four-block network at its published rate and batch-norm protocol, the transductive one
(Finn et al., 2017), at a width that a laptop can train.

    evometa search search_spaces/omniglot.py --data DIR      # DIR holds the two published archives
    evometa search search_spaces/omniglot.py --download      # or have them fetched
"""

from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.network import ConvBlock, conv_net
from evometa.rule import rule_space
from evometa.task import Omniglot

WAYS = 5

block = s.Struct(
    width=s.Choice(8, 16, 32, 64),
    kernel=s.Choice(3, 5),
    reduce=s.Choice("pool", "stride"),
    skip=s.Choice(False, True),
)

space = s.Struct(
    blocks=s.List(block, min=2, max=4),
    norm=s.Choice("batch", "group", "none"),
    activation=s.Choice("relu", "leaky_relu", "elu", "silu"),
    head=s.Choice("mean", "flatten"),
    rule=rule_space(
        steps=s.Int(1, 3),
        rate=s.Float(0.01, 1.0, log=True),
        order=s.Choice(2),
        adapts=s.Choice("all", "head"),
        anneal=s.Choice(0.0),
        outer=s.Choice(adam=s.Struct(rate=s.Choice(1e-3), schedule=s.Choice("constant", "cosine"))),
    ),
)


def build(genome) -> nn.Module:
    blocks, channels = [], 1
    for gene in genome["blocks"]:
        blocks.append(
            ConvBlock(channels, **gene, norm=genome["norm"], activation=genome["activation"])
        )
        channels = gene["width"]
    return conv_net(blocks, WAYS, head=genome["head"])


def conv4(width: int) -> dict:
    """The published network: four blocks of stride 2, mean over positions, linear head."""
    layer = {"width": width, "kernel": 3, "reduce": "stride", "skip": False}
    return {
        "blocks": [layer] * 4,
        "norm": "batch",
        "activation": "relu",
        "head": "mean",
        "rule": preset("maml", rate=0.4),
    }


study = Study(
    space=space,
    build=build,
    task=Omniglot(ways=WAYS, shots=1, queries=15, split="random"),
    objectives={"accuracy": "max", "params": "min"},
    baselines={"MAML conv4-32": conv4(32)},
    training=Training(iterations=60, tasks=4, validation=60, norm="transductive"),
    candidates=30,
)
