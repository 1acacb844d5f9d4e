"""Anything that follows `Space` nests; results do not depend on the hash seed; speed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import evometa
from evometa.errors import GenomeError
from evometa.space import Choice, Float, Int, List, Space, Struct, gene_value

TEN = Struct(
    a=Int(1, 9),
    b=Int(1, 99, log=True),
    c=Float(0, 1),
    d=Float(1e-3, 1, log=True),
    e=Choice(1, 2, 3),
    f=Choice("a", "b"),
    blocks=List(Struct(w=Choice(8, 16), k=Int(1, 7, step=2)), min=2, max=2),
)


class Word:
    """A user's own space: texts of three letters."""

    def sample(self, rng):
        return "".join(rng.choice(list("ab"), size=3))

    def validate(self, genome, path=""):
        if not (isinstance(genome, str) and len(genome) == 3 and set(genome) <= set("ab")):
            raise GenomeError(f"{path}: must be three of ab, got {genome!r}")

    def size(self):
        return 8.0

    def moves(self, genome):
        return 3

    def mutate(self, genome, rng):
        place = int(rng.integers(3))
        return genome[:place] + "ba"["ab".index(genome[place])] + genome[place + 1 :]

    def crossover(self, first, second, rng):
        return first[:1] + second[1:]

    def numeric(self, genome, path=""):
        return {}

    def genes(self, path=""):
        return {}

    def describe(self):
        return {"word": 3}


def test_a_space_of_ones_own_nests_anywhere():
    assert isinstance(Word(), Space)
    space = Struct(
        word=Word(),
        some=List(Word(), 1, 2),
        pick=Choice("no", word=Word(), some=List(Word(), 1, 1)),
    )
    rng = np.random.default_rng(0)
    genome = other = space.sample(rng)
    for _ in range(100):
        mutant = space.mutate(genome, rng)
        space.validate(mutant)
        assert mutant != genome
        space.validate(space.crossover(mutant, other, rng))
        genome = mutant
    with pytest.raises(GenomeError, match=r"^some\[0\]: must be three of ab"):
        space.validate({"word": "aba", "some": ["abc"], "pick": "no"})
    assert space.size() == 8 * (8 + 64) * (1 + 8 + 8)


def test_genes_are_the_leaves_of_every_genome():
    space = Struct(
        Struct(depth=Int(1, 3)).fields,
        rule=Struct(rate=Float(0, 1), kind=Choice("sgd", adam=Struct(beta=Float(0, 1)))),
        blocks=List(Int(0, 1), 1, 2),
        pads=Choice([0, 0], [1, 1]),
        maybe=Choice(None, 16),
    )
    genes = space.genes()
    assert {path: gene.type for path, gene in genes.items()} == {
        "depth": int,
        "rule.rate": float,
        "rule.kind": str,
        "pads": str,
        "maybe": int,
    }
    genome = {
        "depth": 2,
        "rule": {"rate": 0.5, "kind": {"adam": {"beta": 0.5}}},
        "blocks": [0],
        "pads": [1, 1],
        "maybe": None,
    }
    assert [gene_value(genome, path) for path in genes] == [2, 0.5, "adam", "[1, 1]", None]
    assert list(space.numeric(genome)) == ["depth", "rule.rate", "rule.kind.adam.beta", "blocks[0]"]


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        (Choice(1, 2), int),
        (Choice(1, 0.5), float),
        (Choice(True, False), bool),
        (Choice(True, 1), str),
        (Choice("a", 1), str),
        (Choice(None), str),
        (Choice(1, deep=Int(0, 1)), str),
    ],
)
def test_the_type_of_a_choice(choice, kind):
    assert choice.type is kind


def test_equal_values_of_different_types_make_different_spaces():
    assert Choice(1) != Choice(True) and Choice(1) != Choice(1.0)
    assert Choice(1, [2]) == Choice(1, [2]) and hash(Choice([2])) == hash(Choice([2]))
    assert Struct(a=Int(0, 1)) == Struct({"a": Int(0, 1)}) != Struct(a=Int(0, 2))
    assert repr(Choice("a", b=Int(0, 1))) == "Choice('a', b=Int(low=0, high=1, step=1, log=False))"
    assert Int(0, 10, step=4).high == 8


SESSION = """
import numpy as np
from evometa.records import canonical_json
from tests.space.test_nesting import TEN
rng = np.random.default_rng(7)
genome = TEN.sample(rng)
for _ in range(50):
    genome = TEN.crossover(TEN.mutate(genome, rng), TEN.sample(rng), rng)
print(canonical_json(genome), canonical_json(TEN.describe()))
"""


def test_the_hash_seed_changes_nothing():
    root = Path(evometa.__file__).parents[1]
    said = {
        subprocess.run(
            [sys.executable, "-c", SESSION],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_proposals_are_cheap():
    rng = np.random.default_rng(0)
    genome = TEN.sample(rng)
    for propose in (lambda: TEN.sample(rng), lambda: TEN.mutate(genome, rng)):
        best = min(_seconds(propose) for _ in range(20))
        assert best < 100e-6, f"{best * 1e6:.0f} us"


def _seconds(propose):
    started = time.perf_counter()
    for _ in range(50):
        propose()
    return (time.perf_counter() - started) / 50
