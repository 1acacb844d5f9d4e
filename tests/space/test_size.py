"""`size` against enumeration; how samples and mutants are spread."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from evometa.records import canonical_json
from evometa.space import Choice, Float, Int, List, Struct


def points(space):
    """All genomes of a small space, by definition."""
    if isinstance(space, Int):
        return list(range(space.low, space.high + 1, space.step))
    if isinstance(space, Choice):
        inner = [{name: g} for name, branch in space.branches.items() for g in points(branch)]
        return [*space.values, *inner]
    if isinstance(space, List):
        each = points(space.item)
        lengths = range(space.min, space.max + 1)
        return [list(items) for n in lengths for items in itertools.product(each, repeat=n)]
    rows = itertools.product(*map(points, space.fields.values()))
    return [dict(zip(space.fields, row, strict=True)) for row in rows]


SMALL = {
    "int": Int(1, 8, 3),
    "log int": Int(1, 9, log=True),
    "choice": Choice(1, 1.0, True, None, "a", [1, 2], [1, 2.0]),
    "branches": Choice("x", deep=Struct(c=Choice(1, 2)), none=Struct()),
    "list": List(Int(0, 1), min=1, max=3),
    "fixed list": List(Choice("a", "b"), min=2, max=2),
    "empty list": List(Int(0, 5), min=0, max=0),
    "list of one value": List(Choice("a"), min=0, max=3),
    "struct": Struct(a=Int(0, 2), b=List(Choice(1, 2), 0, 2)),
    "empty struct": Struct(),
    "nested": Struct(
        blocks=List(Struct(w=Choice(8, 16), k=Choice(3)), 0, 2), head=Choice("no", mlp=Int(1, 2))
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_size_counts_the_genomes_and_all_can_be_drawn(name):
    space = SMALL[name]
    expected = {canonical_json(point) for point in points(space)}
    for point in points(space):
        space.validate(point)
    rng = np.random.default_rng(0)
    assert {canonical_json(space.sample(rng)) for _ in range(1500)} == expected
    assert space.size() == len(expected)
    assert type(space.size()) is float


@pytest.mark.parametrize("name", SMALL)
def test_mutation_alone_reaches_every_genome(name):
    space = SMALL[name]
    rng = np.random.default_rng(0)
    genome = space.sample(rng)
    seen = {canonical_json(genome)}
    for _ in range(3000):
        genome = space.mutate(genome, rng)
        seen.add(canonical_json(genome))
    assert len(seen) == space.size()


def test_infinite_sizes():
    assert math.isinf(Struct(a=Float(0, 1), b=Int(0, 1)).size())
    assert math.isinf(List(Float(0, 1), 0, 1).size())
    assert math.isinf(List(Int(0, 2**30), 100, 200).size()), "beyond a float"
    assert List(Float(0, 1), 0, 0).size() == 1
    assert Float(2, 2).size() == 1


def test_constraints_are_not_counted():
    assert Struct(a=Int(0, 9), constraints=[lambda genome: genome["a"] == 3]).size() == 10


def test_all_places_are_equally_likely_to_change():
    space = Struct(
        a=Int(0, 99), b=Struct(c=Float(0, 1), d=Choice(1, 2, 3)), e=List(Int(0, 9), 2, 2)
    )
    genome = {"a": 50, "b": {"c": 0.5, "d": 2}, "e": [4, 4]}
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    for _ in range(5000):
        mutant = space.mutate(genome, rng)
        counts["a"] += mutant["a"] != 50
        counts["c"] += mutant["b"]["c"] != 0.5
        counts["d"] += mutant["b"]["d"] != 2
        counts["e0"] += mutant["e"][0] != 4
        counts["e1"] += mutant["e"][1] != 4
    assert sum(counts.values()) == 5000, "one change a mutation"
    assert all(900 < count < 1100 for count in counts.values()), counts


def test_all_reshapings_of_a_list_happen():
    space = List(Int(0, 9), 1, 4)
    rng = np.random.default_rng(0)
    made = [space.mutate([1, 2, 3], rng) for _ in range(500)]
    assert {len(mutant) for mutant in made} == {2, 3, 4}
    assert [2, 1, 3] in made and [1, 3, 2] in made
    assert [1, 2] in made and [2, 3] in made and [1, 3] in made


def test_numeric_mutations_are_mostly_near_and_reach_far():
    for space in (Float(0, 1), Float(1e-4, 1, log=True), Int(0, 100), Int(1, 1000, log=True)):
        rng = np.random.default_rng(0)
        middle = space.from_unit(0.5)
        jumps = [abs(space.to_unit(space.mutate(middle, rng)) - 0.5) for _ in range(2000)]
        assert np.mean(np.array(jumps) < 0.25) > 0.7
        assert max(jumps) > 0.45


def test_log_numbers_are_drawn_evenly_over_decades():
    rng = np.random.default_rng(0)
    values = [Float(1e-4, 1, log=True).sample(rng) for _ in range(4000)]
    decades = Counter(math.floor(math.log10(value)) for value in values)
    assert all(850 < decades[decade] < 1150 for decade in (-4, -3, -2, -1))
    ints = Counter(Int(1, 64, log=True).sample(rng) for _ in range(6000))
    assert ints[1] > ints[2] > ints[8] > ints[60]


def test_crossover_mixes_fields_lists_and_branches():
    space = Struct(
        a=Int(0, 1),
        b=Int(0, 1),
        blocks=List(Int(0, 1), 2, 5),
        head=Choice("no", mlp=Struct(u=Int(0, 1), v=Int(0, 1))),
    )
    zeros = {"a": 0, "b": 0, "blocks": [0] * 4, "head": {"mlp": {"u": 0, "v": 0}}}
    ones = {"a": 1, "b": 1, "blocks": [1] * 3, "head": {"mlp": {"u": 1, "v": 1}}}
    rng = np.random.default_rng(0)
    made = [space.crossover(zeros, ones, rng) for _ in range(500)]
    assert {(child["a"], child["b"]) for child in made} == set(itertools.product((0, 1), repeat=2))
    assert {len(child["blocks"]) for child in made} == {3, 4}
    assert any(child["blocks"] == [0, 1, 1] for child in made), "one point"
    assert any(child["blocks"] == [0, 1, 0] for child in made), "item by item"
    inner = {(child["head"]["mlp"]["u"], child["head"]["mlp"]["v"]) for child in made}
    assert len(inner) == 4
