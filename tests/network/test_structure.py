"""Which modules count as equal: only those that do the same, their numbers apart."""

import functools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune, weight_norm

from evometa.network import ConvBlock, Network, conv_net, mlp

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm")


class Net(nn.Module):
    """A network whose differences do not print."""

    def __init__(self, **held):
        super().__init__()
        self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 3)
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, inputs):
        hidden = self.a(inputs)
        for _ in range(getattr(self, "loops", 1)):
            hidden = getattr(self, "act", torch.tanh)(hidden)
        if getattr(self, "flag", False):
            hidden = hidden.detach()
        hidden = F.dropout(hidden, getattr(self, "rate", 0.0), self.training)
        return self.b(hidden * getattr(self, "scale", 1.0))


class Genome(nn.Module):
    """A network that keeps what it was built from, and reads a part of it."""

    def __init__(self, genome):
        super().__init__()
        self.genome, self.width, self.layer = genome, genome["width"], nn.Linear(2, 3)

    def forward(self, inputs):
        return self.layer(inputs) * self.width


class Backwards(torch.autograd.Function):
    """The identity, with no gradient."""

    @staticmethod
    def forward(inputs):
        return inputs.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        del ctx, inputs, output

    @staticmethod
    def backward(ctx, grad):
        del ctx
        return torch.zeros_like(grad)


def scaled(by):
    def act(inputs):
        return torch.tanh(inputs) * by

    return act


def flavoured(sine):
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, inputs):
            return torch.sin(self.layer(inputs)) if sine else torch.tanh(self.layer(inputs))

    return Local()


def hooked(hook):
    module = nn.Sequential(nn.Linear(2, 3))
    module[0].register_forward_hook(hook)
    return module


def shared(same):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    if same:
        module[1].weight = module[0].weight
    return module


def normed(change):
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    change(module)
    return module


DIFFERENT = {
    "function": [lambda f=f: Net(act=f) for f in (F.relu, torch.tanh, torch.sin, F.gelu)],
    "lambda": [lambda: Net(act=lambda x: x.tanh()), lambda: Net(act=lambda x: x.sin())],
    "constant": [lambda: Net(act=lambda x: x * 2.0), lambda: Net(act=lambda x: x * 3.0)],
    "closure": [lambda: Net(act=scaled(1)), lambda: Net(act=scaled(2))],
    "partial": [
        lambda: Net(act=functools.partial(F.leaky_relu, negative_slope=0.1)),
        lambda: Net(act=functools.partial(F.leaky_relu, negative_slope=0.2)),
    ],
    "loops": [lambda n=n: Net(loops=n) for n in (1, 2, 3)],
    "flag": [lambda: Net(flag=False), lambda: Net(flag=True)],
    "scale": [lambda: Net(scale=1.0), lambda: Net(scale=2.0), lambda: Net(scale=2)],
    "keyword": [lambda: Net(rate=0.1), lambda: Net(rate=0.2)],
    "tensor": [lambda: Net(scale=torch.tensor(1.0)), lambda: Net(scale=torch.tensor(2.0))],
    "backward": [lambda: Net(act=Backwards.apply), lambda: Net(act=torch.clone)],
    "method": [lambda: Net(act=torch.nn.ReLU().forward), lambda: Net(act=nn.Tanh().forward)],
    "listed": [lambda: Net(act=nn.Sequential(nn.ReLU())), lambda: Net(act=nn.Sequential())],
    "class": [lambda: flavoured(True), lambda: flavoured(False)],
    "hook": [lambda: hooked(lambda m, i, o: o.sin()), lambda: hooked(lambda m, i, o: o.tanh())],
    "no hook": [lambda: hooked(lambda m, i, o: None), lambda: nn.Sequential(nn.Linear(2, 3))],
    "eps": [lambda: nn.BatchNorm1d(3, eps=1e-5), lambda: nn.BatchNorm1d(3, eps=1e-3)],
    "frozen": [lambda: normed(lambda m: None), lambda: normed(lambda m: m[1].eval())],
    "untrained": [
        lambda: normed(lambda m: None),
        lambda: normed(lambda m: m[0].bias.requires_grad_(False)),
    ],
    "weight norm": [lambda: weight_norm(nn.Linear(2, 3)), lambda: nn.Linear(2, 3)],
    "read": [lambda: Genome({"width": 1}), lambda: Genome({"width": 2})],
    "shape": [lambda: mlp(2, [4], 3), lambda: mlp(2, [5], 3)],
    "shared": [lambda: shared(True), lambda: shared(False)],
    "cached": [lambda n=n: Net(act=functools.cache(scaled(n))) for n in (1, 2)],
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_networks_that_do_something_else_differ(kind):
    found = [Network(build()).structure for build in DIFFERENT[kind]]
    assert len(set(found)) == len(found)


EQUAL = {
    "dense": lambda: mlp(2, [4, 4], 3),
    "function": lambda: Net(act=torch.sin, loops=3),
    "lambda": lambda: Net(act=lambda x: x * 2),
    "closure": lambda: Net(act=scaled(2)),
    "local class": lambda: flavoured(True),
    "hook": lambda: hooked(scaled.__get__),
    "weight norm": lambda: weight_norm(nn.Linear(2, 3)),
    "pruned": lambda: prune.l1_unstructured(nn.Linear(2, 3), "weight", amount=2),
    "spectral": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
    "recurrent": lambda: nn.LSTM(2, 3, num_layers=2, bidirectional=True),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "images": lambda: nn.Sequential(ConvBlock(1, 4), ConvBlock(4, 4)),
}


@pytest.mark.parametrize("kind", EQUAL)
def test_networks_that_differ_in_numbers_are_equal(kind):
    assert len({Network(EQUAL[kind]()).structure for _ in range(3)}) == 1


def test_what_no_code_reads_makes_no_difference():
    genomes = ({"width": 2, "rate": rate} for rate in (0.1, 0.2))
    assert len({Network(Unread(genome)).structure for genome in genomes}) == 1


class Unread(nn.Module):
    """A network that keeps what it was built from, and does not read it."""

    def __init__(self, genome):
        super().__init__()
        self.genome, self.layer = genome, nn.Linear(2, genome["width"])

    def forward(self, inputs):
        return self.layer(inputs)


PROGRAM = """
import torch
from tests.network.test_structure import DIFFERENT, EQUAL, Network
for build in (*[b for builds in DIFFERENT.values() for b in builds], *EQUAL.values()):
    print(Network(build()).structure)
"""


def test_the_structure_is_the_same_in_every_process():
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.add(done.stdout)
    assert len(found) == 1
    assert "0x" not in found.pop()


def test_a_call_leaves_the_structure_as_it_was():
    module = conv_net([ConvBlock(1, 4)], 3)
    module(torch.rand(2, 1, 8, 8))
    network = Network(module)
    network(network.params, network.buffers, torch.rand(2, 1, 8, 8), norm="batch", training=True)
    assert Network(module).structure == network.structure


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"rng": torch.Generator()}, "rng is a random generator"),
        ({"more": [nn.Linear(2, 2)]}, r"more\[0\].weight is not registered"),
        ({"more": {"a": nn.Parameter(torch.zeros(2))}}, "more.a is not registered"),
    ],
)
def test_what_cannot_be_trained_is_refused(held, said):
    with pytest.raises(ValueError, match=said):
        Network(Net(**held))
