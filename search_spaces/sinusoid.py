"""Few-shot sine waves: which small network and which learning rule adapt best in a few steps?

Every task is a wave of unknown amplitude and phase, seen at 10 points. Searched together: depth,
widths and activation of a small network; inner steps, rate, which rates are learned, which
parameters adapt, the order of derivative, the parts of MAML++, and the outer loop's schedule. The
baseline is the published design (Finn et al., 2017): 40-40 ReLU units, one step of rate 0.01 on
everything, second order.

    evometa search search_spaces/sinusoid.py
"""

from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset
from evometa.network import mlp
from evometa.rule import rule_space
from evometa.task import Sinusoid

space = s.Struct(
    hidden=s.List(s.Int(8, 80, step=8), min=1, max=3),
    activation=s.Choice("relu", "tanh", "silu"),
    rule=rule_space(
        steps=s.Int(1, 3),
        order=s.Choice(1, 2),
        affine=s.Choice("shared"),  # nothing here is normalised
        outer=s.Choice(adam=s.Struct(rate=s.Choice(5e-3), schedule=s.Choice("constant", "cosine"))),
    ),
)


maml = preset("maml", outer={"adam": {"rate": 5e-3, "schedule": "constant"}})


def build(genome) -> nn.Module:
    return mlp(1, genome["hidden"], 1, genome["activation"])


study = Study(
    space=space,
    build=build,
    task=Sinusoid(shots=10),
    objectives={"query_loss": "min", "params": "min"},
    baselines={"MAML": {"hidden": [40, 40], "activation": "relu", "rule": maml}},
    training=Training(iterations=300, tasks=25, validation=200),
    seeds=3,  # those that may be the best
    candidates=100,
)
