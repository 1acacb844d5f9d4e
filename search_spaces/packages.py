"""Which section does a program belong to, from five descriptions of each? Debian's packages.

An episode tells five sections of the archive apart (games, python, fonts, ...) by the short
descriptions of their packages, sections that no search has seen in meta-test. Texts are vectors of
hashed character n-grams. Searched together: a small network on them, whether the n-grams stand
beside what it makes of them, and how classes follow: by a ridge head, by prototypes, or by a
gradient rule. The baselines are ridge and prototypes on the n-grams beside one layer, and MAML.

The list of packages is the one on this machine, as `apt-cache dumpavail` prints it.

    evometa search search_spaces/packages.py
"""

import random
import shutil
import subprocess
from collections import defaultdict

import torch
from torch import nn

from evometa import Study, Training
from evometa import space as s
from evometa.learner import preset, prototype_space, ridge_space
from evometa.rule import rule_space
from evometa.task import Grams, Text

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
LEAST, MOST = 100, 300  # packages of a section
FEATURES = 512


def read_packages() -> tuple[list[str], list[str]]:
    if shutil.which("apt-cache") is None:
        raise FileNotFoundError("this machine has no apt-cache, so no list of Debian packages")
    printed = subprocess.run(
        ["apt-cache", "dumpavail"], capture_output=True, text=True, errors="replace"
    ).stdout
    found = defaultdict[str, dict[str, None]](dict)
    for package in printed.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in package.splitlines() if ": " in line)
        if "Section" in lines and "Description" in lines:
            section = lines["Section"].rpartition("/")[2]
            found[section][lines["Description"]] = None  # each once
    owners: dict[str, set[str]] = defaultdict(set)
    for section, descriptions in found.items():
        for description in descriptions:
            owners[description].add(section)
    texts, labels = [], []
    for section in sorted(found):
        own = sorted(each for each in found[section] if len(owners[each]) == 1)
        if len(own) >= LEAST:
            own = random.Random(section).sample(own, min(MOST, len(own)))
            texts += own
            labels += [section] * len(own)
    if len(set(labels)) < 25:
        raise FileNotFoundError(
            "the list of Debian packages on this machine is too small for this study: it has "
            f"{len(set(labels))} sections of {LEAST} packages; `apt-get update` fetches it whole"
        )
    return texts, labels


class Beside(nn.Module):
    """The n-grams themselves, and beside them what a network makes of them."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return torch.cat([inputs, self.network(inputs)], 1)


def build(genome) -> nn.Module:
    layers, width = [], FEATURES
    for wider in genome["hidden"]:
        layers += [nn.Linear(width, wider), ACTIVATIONS[genome["activation"]]()]
        width = wider
    network = nn.Sequential(nn.Dropout(genome["dropout"]), *layers)
    if genome["beside"]:
        network, width = Beside(network), FEATURES + width
    if "gradient" in genome["rule"]:
        network = nn.Sequential(network, nn.Linear(width, 5))
    return network


def baseline(rule, beside=True):
    numbers = {"hidden": [64], "activation": "relu", "dropout": 0.0}
    return {**numbers, "beside": beside, "rule": rule}


texts, labels = read_packages()

study = Study(
    space=s.Struct(
        hidden=s.List(s.Int(16, 64, step=16), min=1, max=2),
        activation=s.Choice(*ACTIVATIONS),
        dropout=s.Choice(0.0, 0.25, 0.5),
        beside=s.Choice(True, False),
        rule=s.Choice(
            ridge=ridge_space(),
            prototypes=prototype_space(ways=s.Int(5, 20, step=5)),
            gradient=rule_space(steps=s.Int(1, 3)),
        ),
    ),
    build=build,
    task=Text(texts, labels, encoder=Grams(FEATURES), ways=5, shots=5, queries=10),
    objectives={"accuracy": "max", "params": "min"},
    baselines={
        "ridge": baseline(preset("ridge")),
        "ProtoNet": baseline(preset("protonet", ways=20)),
        "MAML": baseline({"gradient": preset("maml", rate=0.1)}, beside=False),
    },
    training=Training(iterations=150, tasks=4, validation=150),
    candidates=40,
)
