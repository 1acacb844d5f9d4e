"""Which update adapts a fixed network to a sine wave best, from five points and in one step?

The network is the published one (1-40-40-1, ReLU). What is searched is the learning rule: an
expression that says what is subtracted from the weights, together with the size and granularity of
its rates. MAML, Meta-SGD and learned per-layer rates are points of the space, and the baselines, as
are two updates written by hand that bound each weight's step: evolution may start from them.

A rule is trained with one step. Two things count: the loss after that step, and the worst mean loss
from there to ten steps, since rules may explode when they are given more steps than they were
trained with, as Meta-SGD's do.

    evometa search search_spaces/learning_rules.py --pack 8
"""

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.network import mlp
from evometa.rule import rule_space, update_space
from evometa.task import Sinusoid

space = s.Struct(
    rule=rule_space(
        steps=s.Choice(1),
        rate=s.Float(0.003, 0.3, log=True),
        order=s.Choice(2),
        rates=s.Choice("fixed", "layer", "parameter"),
        adapts=s.Choice("all"),
        multi_step=s.Choice(0.0),
        anneal=s.Choice(0.0),
        affine=s.Choice("shared"),
        outer=s.Choice(adam=s.Struct(rate=s.Choice(1e-3), schedule=s.Choice("constant"))),
        update=update_space(size=20),
    )
)


saturating = ["mul", "rate", "tanh", "mul", "gain", "gradient"]


def build(genome):
    return mlp(1, [40, 40], 1)


study = Study(
    space=space,
    build=build,
    task=Sinusoid(shots=5, queries=5),
    objectives={"query_loss": "min", "later_query_loss": "min"},
    baselines={
        "MAML": {"rule": preset("maml", rate=0.01)},
        "per-layer rates": {"rule": preset("lslr", rates="layer", rate=0.01)},
        "Meta-SGD": {"rule": preset("meta-sgd", rate=0.01)},
        "saturating": {"rule": preset("meta-sgd", rate=0.03, update=saturating)},
        "loss-scaled": {
            "rule": preset("meta-sgd", rate=0.05, update=["mul", "sqrt", "loss", *saturating])
        },
    },
    training=Training(iterations=2000, tasks=25, validation=200, later=10),
    candidates=300,
)
