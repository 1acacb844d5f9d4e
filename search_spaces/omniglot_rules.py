"""Which update adapts a fixed convolutional network to new characters best, in one step?

5-way 1-shot Omniglot with conv4-32 (Finn et al., 2017). What is searched is the learning rule: an
expression that says what is subtracted from the weights, with the size and granularity of its
rates. MAML and Meta-SGD are the baselines, with the transductive batch norm that they are published
with, and two bounded updates are seeds. Sized for a laptop.

    evometa search search_spaces/omniglot_rules.py --download
"""

from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.network import ConvBlock, conv_net
from evometa.rule import rule_space, update_space
from evometa.task import Omniglot

space = s.Struct(
    rule=rule_space(
        steps=s.Choice(1),
        rate=s.Float(0.01, 1.0, log=True),
        order=s.Choice(2),
        rates=s.Choice("fixed", "layer", "parameter"),
        adapts=s.Choice("all", "head", "body"),
        multi_step=s.Choice(0.0),
        anneal=s.Choice(0.0),
        affine=s.Choice("shared"),
        outer=s.Choice(adam=s.Struct(rate=s.Choice(1e-3), schedule=s.Choice("constant"))),
        update=update_space(size=16),
    )
)
saturating = ["mul", "rate", "tanh", "mul", "gain", "gradient"]


def build(genome) -> nn.Module:
    blocks = [ConvBlock(1 if i == 0 else 32, 32, reduce="stride") for i in range(4)]
    return conv_net(blocks, 5, head="mean")


study = Study(
    space=space,
    build=build,
    task=Omniglot(ways=5, shots=1, queries=5),
    objectives={"accuracy": "max"},
    baselines={
        "MAML": {"rule": preset("maml", rate=0.4)},
        "Meta-SGD": {"rule": preset("meta-sgd", rate=0.4)},
        "saturating": {"rule": preset("meta-sgd", rate=0.1, update=saturating)},
        "loss-scaled": {
            "rule": preset("meta-sgd", rate=0.1, update=["mul", "sqrt", "loss", *saturating])
        },
    },
    training=Training(iterations=150, tasks=4, validation=200, norm="transductive"),
    candidates=60,
)
