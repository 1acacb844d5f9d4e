"""Random spaces for the laws."""

from hypothesis import settings
from hypothesis import strategies as st

from evometa.records import canonical_json
from evometa.space import Choice, Float, Int, List, Primitive, Struct, Tree

law = settings(max_examples=80, deadline=None)

scalars = st.one_of(
    st.booleans(),
    st.integers(-9, 9),
    st.sampled_from(["relu", "é'\"", ""]),
    st.none(),
    st.floats(-2, 2).map(lambda value: value + 0.0),
)
plain = scalars | st.lists(scalars, max_size=2)


def _int(low: int, span: int, step: int) -> Int:
    return Int(low, low + span, step)


def _log_int(low: int, span: int) -> Int:
    return Int(low, low + span, log=True)


def _float(low: float, span: float) -> Float:
    return Float(low, low + span)


def _log_float(low: float, factor: float) -> Float:
    return Float(low, max(low, low * factor), log=True)


numbers = st.one_of(
    st.builds(_int, st.integers(-9, 9), st.integers(0, 20), st.integers(1, 4)),
    st.builds(_int, st.integers(-(2**39), 2**39), st.integers(0, 2**38), st.integers(1, 2**20)),
    st.builds(_log_int, st.integers(1, 9), st.integers(0, 90)),
    st.builds(_log_int, st.integers(1, 2**30), st.integers(0, 2**39)),
    st.builds(_float, st.floats(-5, 5), st.floats(0, 9)),
    st.builds(_float, st.floats(-1e9, 1e9), st.floats(0, 1e-3)),
    st.builds(_log_float, st.floats(1e-6, 1), st.floats(1, 1e6)),
    st.builds(_log_float, st.floats(1e-6, 1e6), st.floats(1, 1 + 1e-6)),
)
choices = st.lists(plain, min_size=1, max_size=4, unique_by=canonical_json).map(
    lambda values: Choice(*values)
)


def _nest(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "c d", "d"]), inner, max_size=4).map(Struct),
        st.builds(
            lambda values, branches: Choice(*values, **branches),
            st.lists(plain, max_size=2, unique_by=canonical_json),
            st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=3),
        ),
        st.builds(
            lambda item, low, more: List(item, low, low + more),
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        ),
    )


_ALL = ("scalar", "layer", "element")
PRIMITIVES = [
    Primitive("gradient", (), "element"),
    Primitive("loss", (), "scalar"),
    Primitive("dimension", (), "layer"),
    Primitive("add", ("same", "same"), kinds=_ALL),
    Primitive("mul", ("same", "same"), kinds=_ALL),
    Primitive("sign", ("same",)),
    Primitive("norm", ("element",), "layer", ()),
    Primitive("average", ("decay", "same")),
]
trees = st.builds(
    lambda size, depth, required: Tree(PRIMITIVES, size=size, depth=depth, required=required),
    st.integers(3, 30),
    st.integers(2, 9),
    st.sampled_from([(), ("gradient",)]),
)

spaces = st.recursive(numbers | choices | trees, _nest, max_leaves=10)
seeds = st.integers(0, 2**32)
