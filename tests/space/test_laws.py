"""What holds for every space: the laws of `Space`, on random spaces."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import example, given

from evometa.records import canonical_json
from evometa.space import Float, Leaf, Space, Tree, decode, encode, gene_value, get, structure
from tests.space.strategies import PRIMITIVES, law, numbers, seeds, spaces


def assert_plain(value):
    assert type(value) in (dict, list, str, int, float, bool, type(None)), type(value)
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            assert_plain(item)


def spoil(value):
    """Change every dict and list within a value."""
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoiled"] = 1
    elif isinstance(value, list):
        for item in value:
            spoil(item)
        value.append("spoiled")


@law
@given(spaces, seeds)
def test_samples_are_valid_plain_and_repeatable(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    space.validate(genome)
    assert_plain(genome)
    text = canonical_json(genome)
    assert canonical_json(json.loads(text)) == text
    space.validate(json.loads(text))
    assert canonical_json(space.sample(np.random.default_rng(seed))) == text


@law
@example(Tree(PRIMITIVES, size=3, depth=2, required=("gradient",)), 2)
@given(spaces, seeds)
def test_mutants_are_valid_plain_repeatable_and_differ_where_they_can(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    before = canonical_json(genome)
    mutants = [space.mutate(genome, np.random.default_rng(seed + 1)) for _ in range(2)]
    space.validate(mutants[0])
    assert_plain(mutants[0])
    assert canonical_json(mutants[0]) == canonical_json(mutants[1])
    assert (canonical_json(mutants[0]) != before) == (space.size() > 1)
    spoil(mutants[0])
    assert canonical_json(genome) == before


@law
@given(spaces, seeds)
def test_there_are_moves_just_where_there_are_other_genomes(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    assert (space.moves(genome) > 0) == (space.size() > 1)


@law
@given(spaces, seeds)
def test_children_are_valid_plain_repeatable_and_share_nothing(space, seed):
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    before = canonical_json([first, second])
    children = [space.crossover(first, second, np.random.default_rng(seed)) for _ in range(2)]
    space.validate(children[0])
    assert_plain(children[0])
    assert canonical_json(children[0]) == canonical_json(children[1])
    spoil(children[0])
    assert canonical_json([first, second]) == before


@law
@given(spaces, seeds)
def test_the_child_of_equals_equals_them(space, seed):
    rng = np.random.default_rng(seed)
    genome = space.sample(rng)
    assert canonical_json(space.crossover(genome, genome, rng)) == canonical_json(genome)


@law
@given(spaces, seeds)
def test_decode_undoes_encode(space, seed):
    rng = np.random.default_rng(seed)
    genome = space.mutate(space.sample(rng), rng)
    vector = encode(genome, space)
    assert all(type(unit) is float and 0 <= unit <= 1 for unit in vector)
    skeleton = structure(genome, space)
    back = decode(skeleton, vector, space)
    assert canonical_json(back) == canonical_json(genome)
    assert structure(back, space) == skeleton
    assert space.numeric(skeleton) == space.numeric(genome)


@law
@given(spaces, seeds)
def test_every_vector_decodes_to_a_valid_genome(space, seed):
    rng = np.random.default_rng(seed)
    genome = space.sample(rng)
    units = rng.choice([0.0, 1.0, rng.random()], size=len(space.numeric(genome)))
    made = decode(structure(genome, space), units, space)
    space.validate(made)
    assert_plain(made)


@law
@given(spaces, seeds)
def test_genes_and_numbers_are_where_their_paths_say(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    for path, leaf in space.genes().items():
        assert isinstance(leaf, Leaf)
        leaf.validate(get(genome, path))
        value = gene_value(genome, path)
        if leaf.type is not str and value is not None:
            assert type(value) in ((int, float) if leaf.type is float else (leaf.type,))
    for path, leaf in space.numeric(genome).items():
        leaf.validate(get(genome, path))
    assert set(space.genes("at.here")) == {_below(path) for path in space.genes()}


def _below(path):
    return f"at.here.{path}" if path else "at.here"


@law
@given(spaces, seeds)
def test_spaces_are_values(space, seed):
    twin = pickle.loads(pickle.dumps(space))
    assert twin == space and hash(twin) == hash(space) and repr(twin) == repr(space)
    assert isinstance(space, Space)
    text = canonical_json(space.describe())
    spoil(space.describe())
    assert canonical_json(space.describe()) == text
    genomes = [one.sample(np.random.default_rng(seed)) for one in (space, twin)]
    assert canonical_json(genomes[0]) == canonical_json(genomes[1])
    with pytest.raises(AttributeError):
        space.low = space.item = space._fields = space._keys = 3


@law
@given(numbers, seeds)
def test_numbers_fill_the_unit_interval(space, seed):
    assert space.from_unit(0.0) == space.low
    assert space.from_unit(1.0) == space.high
    rng = np.random.default_rng(seed)
    low, high = sorted((rng.random(), rng.random()))
    assert space.from_unit(low) <= space.from_unit(high)
    value = space.from_unit(low)
    assert space.from_unit(space.to_unit(value)) == value


def test_real_numbers_written_by_hand_come_back_to_ten_digits():
    for space in (Float(0.0, 3.5), Float(-4e3, 1.0), Float(1e-5, 10.0, log=True)):
        value = 1 / 3
        assert space.from_unit(space.to_unit(value)) == pytest.approx(value, abs=1e-6, rel=1e-9)
    rate = Float(0.001, 1.0, log=True)
    for value in (0.4, 0.01, 0.001, 0.5):
        assert rate.from_unit(rate.to_unit(value)) == value, "few digits come back as they were"
