"""Constraints hold for all that is made, and errors name them."""

import itertools

import numpy as np
import pytest

from evometa.errors import GenomeError, SpaceError
from evometa.space import Choice, Int, List, Struct

RISING = Struct(
    a=Int(0, 9), b=Int(0, 9), c=Int(0, 9), constraints={"rising": lambda g: g["a"] < g["b"]}
)


@pytest.mark.parametrize(
    "space",
    [
        RISING,
        Struct(inner=RISING, other=Int(0, 3)),
        List(RISING, min=1, max=3),
        Choice("plain", inner=RISING),
    ],
)
def test_constraints_hold_at_every_depth(space):
    rng = np.random.default_rng(0)
    genomes = [space.sample(rng) for _ in range(60)]
    for first, second in itertools.pairwise(genomes):
        space.validate(first)
        mutant = space.mutate(first, rng)
        space.validate(mutant)
        assert mutant != first
        space.validate(space.crossover(first, second, rng))


def test_validate_names_the_constraint_and_the_place():
    with pytest.raises(GenomeError, match=r"^inner: must satisfy the constraint 'rising', got"):
        Struct(inner=RISING).validate({"inner": {"a": 5, "b": 5, "c": 0}})


def test_mutation_takes_several_steps_where_one_is_not_enough():
    space = Struct(
        a=Int(0, 3), b=Int(0, 3), constraints=[lambda genome: genome["a"] == genome["b"]]
    )
    rng = np.random.default_rng(0)
    genome, seen = {"a": 0, "b": 0}, set()
    for _ in range(60):
        mutant = space.mutate(genome, rng)
        assert mutant != genome and mutant["a"] == mutant["b"]
        genome = mutant
        seen.add(genome["a"])
    assert seen == {0, 1, 2, 3}


def test_a_field_that_cannot_change_leaves_the_others_to_change():
    only = Struct(x=Int(0, 1), constraints={"only": lambda genome: genome["x"] == 0})
    space = Struct(stuck=only, free=Int(0, 9))
    rng = np.random.default_rng(0)
    genome = {"stuck": {"x": 0}, "free": 5}
    for _ in range(5):
        mutant = space.mutate(genome, rng)
        assert mutant["free"] != 5 and mutant["stuck"] == {"x": 0}
    with pytest.raises(SpaceError, match="'only' failed"):
        only.mutate({"x": 0}, rng)
    with pytest.raises(SpaceError, match="'only' failed"):
        Struct(stuck=only).mutate({"stuck": {"x": 0}}, rng)


def test_crossover_falls_back_to_a_copy_of_a_parent():
    space = Struct(
        a=List(Int(0, 9), 0, 3),
        b=List(Int(0, 9), 0, 3),
        constraints=[lambda genome: genome["a"] == genome["b"]],
    )
    parents = [{"a": [1, 2], "b": [1, 2]}, {"a": [7, 8, 9], "b": [7, 8, 9]}]
    rng = np.random.default_rng(0)
    for _ in range(30):
        child = space.crossover(*parents, rng)
        space.validate(child)
        child["a"].clear()
    assert parents == [{"a": [1, 2], "b": [1, 2]}, {"a": [7, 8, 9], "b": [7, 8, 9]}]


def test_impossible_constraints_are_named():
    rng = np.random.default_rng(0)
    space = Struct(
        a=Int(0, 9),
        constraints={"mostly": lambda genome: genome["a"] > 0, "never": lambda genome: False},
    )
    with pytest.raises(SpaceError, match=r"no genome in 1000 attempts .* 'never' failed \d+ times"):
        space.sample(rng)
    with pytest.raises(SpaceError, match=r"no genome in 1000 attempts .* 'never' failed \d+ times"):
        space.mutate({"a": 1}, rng)


def test_raising_constraints_are_named_with_the_genome():
    rng = np.random.default_rng(0)
    space = Struct(a=Choice(7), constraints={"typo": lambda genome: genome["b"] > 1})
    message = r"'typo' raised KeyError: 'b', on the genome \{'a': 7\}"
    with pytest.raises(SpaceError, match=message):
        space.sample(rng)
    with pytest.raises(SpaceError, match=message):
        space.validate({"a": 7})


def even(genome):
    return genome["a"] % 2 == 0


def test_constraints_get_names():
    space = Struct(a=Int(0, 9), constraints=[even, lambda genome: True, lambda genome: True])
    assert space.describe() == {
        "struct": {"a": {"int": [0, 9], "step": 1, "log": False}},
        "constraints": ["even", "<lambda> #2", "<lambda> #3"],
    }
    assert list(Struct(a=Int(0, 9), constraints=[even, even]).constraints) == ["even #1", "even #2"]
