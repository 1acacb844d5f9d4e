"""Laws of spaces, on random spaces."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evometa.errors import GenomeError, SpaceError
from evometa.records import canonical_json
from evometa.space import (
    Choice,
    Float,
    Int,
    List,
    Struct,
    decode,
    encode,
    gene_value,
    get,
    replace,
    structure,
)

plain = st.one_of(
    st.booleans(), st.integers(-9, 9), st.text("ab é'\"", max_size=3), st.none(), st.floats(-2, 2)
)
numbers = st.one_of(
    st.builds(
        lambda low, span, step: Int(low, low + span, step),
        st.integers(-9, 9),
        st.integers(0, 20),
        st.integers(1, 4),
    ),
    st.builds(
        lambda low, span: Int(low, low + span, log=True), st.integers(1, 9), st.integers(0, 90)
    ),
    st.builds(lambda low, span: Float(low, low + span), st.floats(-5, 5), st.floats(0, 9)),
    st.builds(lambda low, k: Float(low, low * k, log=True), st.floats(1e-3, 1), st.floats(1, 99)),
)
choices = st.lists(plain, min_size=1, max_size=4, unique_by=canonical_json).map(
    lambda values: Choice(*values)
)
spaces = st.recursive(
    st.one_of(numbers, choices),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(Struct),
        st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=3).map(
            lambda branches: Choice("plain", **branches)
        ),
        st.builds(
            lambda item, low, more: List(item, low, low + more),
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
    ),
    max_leaves=8,
)
seeds = st.integers(0, 2**32)


@given(spaces, seeds)
def test_samples_are_valid_plain_and_repeatable(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    space.validate(genome)
    assert json.loads(canonical_json(genome)) == genome
    assert space.sample(np.random.default_rng(seed)) == genome


@given(spaces, seeds)
def test_mutants_are_valid_and_differ(space, seed):
    rng = np.random.default_rng(seed)
    genome = space.sample(rng)
    before = canonical_json(genome)
    mutant = space.mutate(genome, rng)
    space.validate(mutant)
    assert canonical_json(genome) == before, "the parent is left alone"
    if space.size() > 1 and not _has_tiny_list(space):
        assert canonical_json(mutant) != before


def _has_tiny_list(space):
    """A list of one item that has one value can be deleted and put back as it was."""
    return "list" in json.dumps(space.describe())


@given(spaces, seeds)
def test_children_are_valid_and_share_nothing(space, seed):
    rng = np.random.default_rng(seed)
    first, second = space.sample(rng), space.sample(rng)
    before = canonical_json([first, second])
    child = space.crossover(first, second, rng)
    space.validate(child)
    _spoil(child)
    assert canonical_json([first, second]) == before


def _spoil(value):
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoiled"] = 1
    elif isinstance(value, list):
        for item in value:
            _spoil(item)
        value.append("spoiled")


@given(spaces, seeds)
def test_decode_undoes_encode(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    vector = encode(genome, space)
    assert all(0 <= unit <= 1 for unit in vector)
    back = decode(structure(genome, space), vector, space)
    space.validate(back)
    assert structure(back, space) == structure(genome, space)
    assert encode(back, space) == pytest.approx(vector)


@given(spaces, seeds)
def test_genes_are_in_every_genome(space, seed):
    genome = space.sample(np.random.default_rng(seed))
    for path, leaf in space.genes().items():
        value = gene_value(genome, path)
        assert value is None or isinstance(value, (int, float, str, bool))
        if leaf.type is not str and value is not None:
            assert isinstance(value, (int, float))
        get(genome, path)


def test_size_counts_the_genomes():
    space = Struct(
        a=Int(1, 7, 3), b=Choice("x", deep=Struct(c=Choice(1, 2))), d=List(Int(0, 1), 0, 2)
    )
    rng = np.random.default_rng(0)
    seen = {canonical_json(space.sample(rng)) for _ in range(3000)}
    assert len(seen) == space.size() == 3 * 3 * 7
    assert math.isinf(Struct(a=Float(0, 1)).size())


@pytest.mark.parametrize(
    ("genome", "message"),
    [
        ({"blocks": [{"width": 16}, {"width": 16}, {"width": 48}], "rate": 0.1},
         r"^blocks\[2\]\.width: must be one of \(16, 32, 64\), got 48$"),
        ({"blocks": [], "rate": 0.1}, r"^blocks: must be a list of 1 to 3 items"),
        ({"blocks": [{"width": 16}]}, r"^rate: missing"),
        ({"blocks": [{"width": 16}], "rat": 0.1}, r"rat: unknown field.*did you mean 'rate'"),
        ({"blocks": [{"width": 16}], "rate": float("nan")}, r"^rate: must be a float"),
        ({"blocks": [{"width": 16}], "rate": True}, r"^rate: must be a float"),
        ({"blocks": [{"width": "16"}], "rate": 0.1}, r"^blocks\[0\]\.width"),
        ({"blocks": {"width": 16}, "rate": 0.1}, r"^blocks: must be a list"),
        ([], r"^genome: must be a dict"),
    ],
)  # fmt: skip
def test_the_offender_is_named(genome, message):
    space = Struct(blocks=List(Struct(width=Choice(16, 32, 64)), 1, 3), rate=Float(0.01, 1))
    with pytest.raises(GenomeError, match=message):
        space.validate(genome)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Int(3, 1), r"`low <= high` must hold, but got \(low=3, high=1\)"),
        (lambda: Int(0, 9, log=True), "`low > 0` must hold with log"),
        (lambda: Int(1.5, 3), "must be an int"),
        (lambda: Float(0, math.inf), "must be finite"),
        (lambda: Choice(), "at least one"),
        (lambda: Choice(1, 1), "must differ"),
        (lambda: Choice(Int(0, 1)), "needs a name"),
        (lambda: Choice(a=3), "must be a space"),
        (lambda: Choice(object()), "plain data"),
        (lambda: Struct(a=3), r"use a=Choice\(3\)"),
        (lambda: List(Int(0, 1), 2, 1), "min <= max"),
    ],
)  # fmt: skip
def test_malformed_spaces_are_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make()


def test_constraints_hold_for_all_that_is_made():
    space = Struct(a=Int(0, 9), b=Int(0, 9), constraints={"rising": lambda g: g["a"] < g["b"]})
    rng = np.random.default_rng(0)
    genomes = [space.sample(rng) for _ in range(50)]
    for first, second in itertools.pairwise(genomes):
        for made in (first, space.mutate(first, rng), space.crossover(first, second, rng)):
            space.validate(made)
            assert made["a"] < made["b"]
    with pytest.raises(GenomeError, match="'rising'"):
        space.validate({"a": 5, "b": 5})


def test_impossible_and_raising_constraints_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(SpaceError, match="'never' failed 1000"):
        Struct(a=Int(0, 9), constraints={"never": lambda g: False}).sample(rng)
    with pytest.raises(SpaceError, match="'typo' raised KeyError"):
        Struct(a=Int(0, 9), constraints={"typo": lambda g: g["b"]}).sample(rng)


def test_replace_reaches_inside_and_copies():
    genome = {"blocks": [{"width": 1}, {"width": 2}], "rate": 0.5}
    assert replace(genome, {"blocks[1].width": 9}) == {
        "blocks": [{"width": 1}, {"width": 9}],
        "rate": 0.5,
    }
    assert genome["blocks"][1]["width"] == 2
    with pytest.raises(GenomeError, match=r"blocks\[7\]"):
        get(genome, "blocks[7].width")


settings.register_profile("evometa", max_examples=60, deadline=None)
settings.load_profile("evometa")
