"""Which network together with which update adapts to a sine wave best, from five points?

Both are searched at once: depth, widths and activation of a small network; the number of inner
steps, and the update, an expression that says what is subtracted from the weights at each step.
Mutations change either the network or the rule; those that make better children are used more
(`evometa top RUN --operators`). The baselines are the published network with MAML and Meta-SGD.

    evometa search search_spaces/joint.py --pack 4
"""

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.network import mlp
from evometa.rule import rule_space, update_space
from evometa.task import Sinusoid

space = s.Struct(
    hidden=s.List(s.Int(8, 80, step=8), min=1, max=3),
    activation=s.Choice("relu", "tanh", "silu"),
    rule=rule_space(
        steps=s.Int(1, 3),
        rate=s.Float(0.003, 0.3, log=True),
        order=s.Choice(1, 2),
        rates=s.Choice("fixed", "layer", "layer-step", "parameter"),
        adapts=s.Choice("all", "head", "body", "norm"),
        multi_step=s.Choice(0.0),
        anneal=s.Choice(0.0),
        affine=s.Choice("shared"),  # nothing here is normalised
        outer=s.Choice(adam=s.Struct(rate=s.Choice(1e-3, 5e-3), schedule=s.Choice("constant"))),
        update=update_space(size=16),
        loss=s.Choice("task", "huber"),
        clip=s.Choice(0.0, 10.0),
    ),
)
published = {"hidden": [40, 40], "activation": "relu"}


def build(genome):
    return mlp(1, genome["hidden"], 1, genome["activation"])


study = Study(
    space=space,
    build=build,
    task=Sinusoid(shots=5, queries=5),
    objectives={"query_loss": "min", "params": "min"},
    baselines={
        "MAML": {**published, "rule": preset("maml", rate=0.01)},
        "Meta-SGD": {**published, "rule": preset("meta-sgd", rate=0.01)},
    },
    training=Training(iterations=500, tasks=25, validation=200),
    candidates=200,
)
