"""What is refused, and what the errors say."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evometa.errors import GenomeError, SpaceError
from evometa.space import Choice, Float, Int, List, Struct, decode, get, replace
from tests.space.strategies import law, seeds

SPACE = Struct(
    blocks=List(Struct(width=Choice(16, 32, 64), kernel=Int(1, 7, step=2)), min=1, max=3),
    rate=Float(0.01, 1, log=True),
    head=Choice("none", mlp=Struct(units=Int(1, 9))),
)
GOOD = {
    "blocks": [{"width": 16, "kernel": 3}, {"width": 32, "kernel": 5}, {"width": 64, "kernel": 1}],
    "rate": 0.1,
    "head": {"mlp": {"units": 3}},
}
WIDTHS = "must be one of (16, 32, 64), got"
RATE = "rate: must be a float from 0.01 to 1.0, got"
HEAD = "head: must be one of ('none', {'mlp': ...}), got"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("blocks[2].width", 48, f"blocks[2].width: {WIDTHS} 48"),
        ("blocks[0].width", "16", f"blocks[0].width: {WIDTHS} '16'"),
        ("blocks[0].width", 16.0, f"blocks[0].width: {WIDTHS} 16.0"),
        ("blocks[0].width", np.int64(16), f"blocks[0].width: {WIDTHS} np.int64(16)"),
        (
            "blocks[1].kernel",
            4,
            "blocks[1].kernel: must be an int from 1 to 7 in steps of 2, got 4",
        ),
        (
            "blocks[1].kernel",
            True,
            "blocks[1].kernel: must be an int from 1 to 7 in steps of 2, got",
        ),
        (
            "blocks[1].kernel",
            3.0,
            "blocks[1].kernel: must be an int from 1 to 7 in steps of 2, got",
        ),
        ("blocks", [], "blocks: must be a list of 1 to 3 items, got []"),
        ("blocks", {}, "blocks: must be a list of 1 to 3 items, got {}"),
        ("blocks", (), "blocks: must be a list of 1 to 3 items, got ()"),
        ("rate", math.nan, f"{RATE} nan"),
        ("rate", math.inf, f"{RATE} inf"),
        ("rate", True, f"{RATE} True"),
        ("rate", 2, f"{RATE} 2"),
        ("rate", None, f"{RATE} None"),
        ("rate", np.float64(0.5), f"{RATE} np.float64(0.5)"),
        ("head", "mlp", f"{HEAD} 'mlp'"),
        ("head", {}, f"{HEAD} {{}}"),
        ("head", {"mlp": {"units": 1}, "none": 1}, HEAD),
        ("head", {"mpl": {"units": 1}}, HEAD),
        ("head", ["none"], f"{HEAD} ['none']"),
        ("head", {1, 2}, HEAD),
        ("head.mlp.units", 0, "head.mlp.units: must be an int from 1 to 9, got 0"),
        ("head.mlp", {}, "head.mlp.units: missing; the fields are units"),
        ("blocks[1]", {"width": 16}, "blocks[1].kernel: missing; the fields are width, kernel"),
        ("blocks[1]", {"widht": 16, "kernel": 3}, "blocks[1].widht: unknown field; the fields are"),
        ("blocks[1]", {"widht": 16, "kernel": 3}, "did you mean 'width'?"),
        ("", [], "genome: must be a dict; the fields are blocks, rate, head, got []"),
        ("", {**GOOD, 3: 4}, "3: unknown field"),
    ],
)
def test_the_offender_is_named(path, value, message):
    SPACE.validate(GOOD)
    with pytest.raises(GenomeError) as refused:
        SPACE.validate(replace(GOOD, {path: value}))
    assert message in str(refused.value)
    if "did you mean" not in message:
        assert str(refused.value).startswith(message)


def test_a_float_may_be_written_as_an_int():
    Float(0, 2).validate(1)
    assert type(Float(0, 2).crossover(1, 1, np.random.default_rng(0))) is float


def test_long_values_are_shortened():
    with pytest.raises(GenomeError) as refused:
        Int(0, 1).validate("x" * 10_000)
    assert len(str(refused.value)) < 300


def _paths(genome, path=""):
    """Paths of all scalars."""
    if isinstance(genome, dict):
        for name, value in genome.items():
            yield from _paths(value, f"{path}.{name}" if path else name)
    elif isinstance(genome, list):
        for index, value in enumerate(genome):
            yield from _paths(value, f"{path}[{index}]")
    else:
        yield path


@law
@given(seeds, st.data())
def test_a_corrupted_value_is_found_at_its_path(seed, data):
    genome = SPACE.sample(np.random.default_rng(seed))
    path = data.draw(st.sampled_from(list(_paths(genome))))
    value = data.draw(st.sampled_from([math.nan, "corrupt", -7, 1e9, [], {}, None]))
    with pytest.raises(GenomeError) as refused:
        SPACE.validate(replace(genome, {path: value}))
    assert str(refused.value).startswith(f"{path}: must be ")


@law
@given(seeds, st.data())
def test_a_lost_field_is_found_at_its_path(seed, data):
    genome = SPACE.sample(np.random.default_rng(seed))
    path = data.draw(st.sampled_from([path for path in _paths(genome) if "." in path]))
    holder, _, name = path.rpartition(".")
    fields = {key: value for key, value in get(genome, holder).items() if key != name}
    with pytest.raises(GenomeError) as refused:
        SPACE.validate(replace(genome, {holder: fields}))
    assert str(refused.value).startswith(f"{path}: missing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Int(3, 1), "`low <= high` must hold, but got (low=3, high=1)"),
        (lambda: Float(3, 1), "`low <= high` must hold, but got (low=3.0, high=1.0)"),
        (lambda: Int(0, 9, log=True), "`low > 0` must hold with log, but got (low=0)"),
        (lambda: Float(0, 9, log=True), "`low > 0` must hold with log, but got (low=0.0)"),
        (lambda: Int(1, 9, step=0), "`step >= 1` must hold"),
        (lambda: Int(1, 9, step=2, log=True), "`step == 1` with log, but got (step=2)"),
        (lambda: Int(1.5, 3), "`low` must be an int, but got (low=1.5)"),
        (lambda: Int(0, True), "`high` must be an int, but got (high=True)"),
        (lambda: Int(0, 2**60), "within 2**40 of 0"),
        (lambda: Int(1, 9, 1, 1), "`log` must be True or False, but got (log=1)"),
        (lambda: Float("0", 1), "`low` must be a number"),
        (lambda: Float(0, math.inf), "`high` must be finite"),
        (lambda: Float(math.nan, 1), "`low` must be finite"),
        (lambda: Float(1e-200, 1e200, log=True), "`high / low` must be finite"),
        (lambda: Choice(), "at least one value or branch"),
        (lambda: Choice(1, 2, 1), "must differ"),
        (lambda: Choice("a", a=Int(0, 1)), "must differ"),
        (lambda: Choice(Int(0, 1)), "needs a name: write Choice(name=Int(...))"),
        (lambda: Choice(Struct), "needs a name: write Choice(name=Struct(...))"),
        (lambda: Choice(a=3), "must be a space, but got a=3"),
        (lambda: Choice(object()), "must be plain data"),
        (lambda: Choice((1, 2)), "of type tuple"),
        (lambda: Choice({"a": 1}), "of type dict"),
        (lambda: Choice(np.float64(1)), "of type float64"),
        (lambda: Choice([1, math.nan]), "finite float"),
        (lambda: Choice(**{"a.b": Int(0, 1)}), "without '.[]'"),
        (lambda: Struct(a=3), "a field of a Struct must be a space, but got a=3"),
        (lambda: Struct(a=3), "for a constant use a=Choice(3)"),
        (lambda: Struct(a={"b": Int(0, 1)}), "write a=Struct(...)"),
        (lambda: Struct(a=Int), "write a=Int(...)"),
        (lambda: Struct({"a[0]": Int(0, 1)}), "without '.[]'"),
        (lambda: Struct({1: Int(0, 1)}), "must be text"),
        (lambda: Struct({"a": Int(0, 1)}, a=Int(0, 1)), "given once, but got 'a' twice"),
        (lambda: Struct(Int(0, 1)), "must come by name"),
        (lambda: Struct(constraints=len), "must be a sequence of functions"),
        (lambda: Struct(constraints=["a < b"]), "must be a sequence of functions"),
        (
            lambda: List(Int(0, 1), min=2, max=1),
            "`0 <= min <= max` must hold, but got (min=2, max=1)",
        ),
        (lambda: List(Int(0, 1), min=-1, max=1), "`0 <= min <= max` must hold"),
        (lambda: List(Int(0, 1), min=0, max=1.5), "`max` must be an int, but got (max=1.5)"),
        (lambda: List(3, min=0, max=1), "the item of a List must be a space, but got 3"),
    ],
)
def test_malformed_spaces_are_refused(make, message):
    with pytest.raises(SpaceError) as refused:
        make()
    assert message in str(refused.value)


def test_what_went_in_can_change_without_effect():
    values, fields = [1, 2], {"a": Int(0, 1)}
    choice, struct = Choice(values, 3), Struct(fields)
    values.append(3)
    fields["b"] = Int(0, 1)
    choice.values[0].append(4)
    choice.sample(np.random.default_rng(0))
    assert choice.values == ([1, 2], 3)
    assert list(struct.fields) == ["a"]
    with pytest.raises(TypeError):
        struct.fields["b"] = Int(0, 1)


@pytest.mark.parametrize("path", ["blocks[7].width", "blocks.width", "head[0]", "rate.x", "none"])
def test_paths_that_lead_nowhere_are_refused(path):
    for reach in (get, lambda genome, path: replace(genome, {path: 1})):
        with pytest.raises(GenomeError) as refused:
            reach(GOOD, path)
        assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize("path", ["blocks[-1]", "blocks[x]", ".rate", "rate.", "a..b", "a]"])
def test_malformed_paths_are_refused(path):
    with pytest.raises(GenomeError, match="must read like"):
        get(GOOD, path)


def test_replace_copies_both_ways():
    before = copy.deepcopy(GOOD)
    blocks = [{"width": 64, "kernel": 7}]
    made = replace(GOOD, {"blocks": blocks, "blocks[0].kernel": 1, "head": "none"})
    assert made == {"blocks": [{"width": 64, "kernel": 1}], "rate": 0.1, "head": "none"}
    assert blocks == [{"width": 64, "kernel": 7}] and before == GOOD
    got = get(GOOD, "blocks")
    got.clear()
    assert before == GOOD
    assert replace(GOOD, {"": 3}) == 3 and get(GOOD, "") == GOOD


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0.5], "must hold 5 numbers"),
        ([0.5] * 4 + [1.5], "must be decoded from a number in"),
        ([0.5] * 4 + [math.nan], "must be decoded from a number in"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(vector, message):
    with pytest.raises(GenomeError, match=message):
        decode(GOOD, vector, SPACE)
